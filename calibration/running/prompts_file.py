"""A file of prompts, one JSON document a line, answered several at once (runtime/serving/).

{"prompt": "Once upon a time"}
{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 64, "id": "a"}
{"tokens": [1, 2, 3]}
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...planner.errors import BadInput, one_line
from ...planner.reading import STDIN, read_at_most, read_stdin, unblocked
from .one_prompt import tokens_of
from .open_session import OpenSession, PreparedRun, RunOptions, open_session, prepare

if TYPE_CHECKING:
    from ...runtime.serving.queue import PromptRequest

_EXAMPLE = (
    'a line is {"prompt": "…"}, {"messages": [{"role": "user", "content": "…"}]} or {"tokens": […]}'
)
MOST_BYTES = 256 * 2**20


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: str
    content: str


class PromptLine(BaseModel):
    """One line of the file: exactly one of `prompt`, `messages` and `tokens`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str | int | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    tokens: list[int] | None = None
    max_tokens: int | None = Field(default=None, ge=1)


def read_lines(path: Path) -> list[PromptLine]:
    """The file's lines, empty ones left out; `-` is stdin. Raises BadInput, naming the line that is
    wrong."""
    name = "stdin" if str(path) == STDIN else path.name
    try:
        text = _bytes(path, name).decode("utf-8")
    except (UnicodeDecodeError, ValueError):
        raise BadInput(f"{name} is no text in UTF-8", _EXAMPLE) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"cannot read {str(path)!r}: {reason}", _EXAMPLE) from None
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number} of {name}"
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            raise BadInput(f"{where} is no JSON", _EXAMPLE) from None
        lines.append(prompt_line(document, where))
    if not lines:
        raise BadInput(f"{name} has no prompts", _EXAMPLE)
    return lines


def typed_lines(prompts: Sequence[str | Mapping[str, Any]]) -> list[PromptLine]:
    """Prompts of a Python call as lines of a file, a text as its `prompt`. Raises BadInput."""
    if isinstance(prompts, str | Mapping) or not isinstance(prompts, Iterable):
        raise BadInput("not a list of prompts", "give several: [...]")
    lines = []
    for number, one in enumerate(prompts, 1):
        if not isinstance(one, str | Mapping):
            raise BadInput(f"prompt {number} is no text and no document", _EXAMPLE)
        document = {"prompt": one} if isinstance(one, str) else dict(one)
        lines.append(prompt_line(document, f"prompt {number}"))
    if not lines:
        raise BadInput("there are no prompts", "give some text")
    return lines


def prompt_line(document: object, where: str) -> PromptLine:
    """One line's document. Raises BadInput, naming `where` it stands."""
    try:
        one = PromptLine.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        said = f"{where}: {place}: " if place else f"{where}: "
        raise BadInput(said + one_line(first["msg"], 80), _EXAMPLE) from None
    if sum(x is not None for x in (one.prompt, one.messages, one.tokens)) != 1:
        raise BadInput(f"{where} needs one of prompt, messages, tokens", _EXAMPLE)
    return one


def _bytes(path: Path, name: str) -> bytes:
    """What a file of prompts, or stdin, holds. Raises BadInput, and OSError."""
    if str(path) == STDIN:
        data = read_stdin(MOST_BYTES)
    else:
        if not path.is_file():
            what = "not a file" if path.exists() else "no such file"
            raise BadInput(
                f"{what}: {str(path)!r}", "give a file of JSON lines, or - for those on stdin"
            )
        with open(path, "rb", opener=unblocked) as file:
            data = read_at_most(file, MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise BadInput(f"{name} has more than {MOST_BYTES} bytes", "cut it in pieces")
    return data


def answer_lines(
    options: RunOptions,
    lines: Sequence[PromptLine],
    *,
    raw: bool,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What `kvpareto run --batch --json` prints, `options.batch` lines at once at the most. Unless
    `quiet` each answer is a JSON line on stdout as it ends; `say` gets a line before and behind.

    Raises BadInput, NothingFits, MissingDependency, Interrupted.
    """
    ready = prepare(replace(options, batch=min(options.batch, len(lines))))
    requests = requests_of(ready, lines, raw=raw)
    given: dict[int, Mapping[str, Any]] = {}
    done = PromptTotals()
    with open_session(ready) as opened:
        say(opened.heading)
        for number, answer, so_far in answers(opened, lines, requests):
            given[number], done = answer, so_far
            if not quiet:
                sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
                sys.stdout.flush()
        say(done.summary)
        return {
            **opened.document(),
            "at_once": ready.work.batch,
            "answers": [given[number] for number in range(len(lines))],
            "prompt_tokens": done.prompt_tokens,
            "new_tokens": done.new_tokens,
            "seconds": done.seconds,
            "tokens_per_s": done.tokens_per_s,
            "joined": done.joined,
        }


@dataclass
class PromptTotals:
    """What was done so far."""

    seconds: float = 0.0
    prompt_tokens: int = 0
    new_tokens: int = 0
    steps: int = 0
    joined: int = 0

    @property
    def tokens_per_s(self) -> float | None:
        return self.new_tokens / self.seconds if self.seconds else None

    @property
    def summary(self) -> str:
        """One line for stderr."""
        rate = f" ({self.tokens_per_s:.1f} tokens/s)" if self.tokens_per_s else ""
        return (
            f"{self.prompt_tokens:,} tokens of prompts, {self.new_tokens:,} generated in "
            f"{self.seconds:.1f} s{rate}; {self.joined} joined while others went on"
        )


def requests_of(
    run: PreparedRun, lines: Sequence[PromptLine], *, raw: bool
) -> list["PromptRequest"]:
    """Each line as tokens and how many may follow. Raises BadInput for a line that does not fit,
    naming it."""
    from ...runtime.serving.queue import PromptRequest

    requests = []
    for number, line in enumerate(lines):
        most = min(line.max_tokens or run.output, run.output)
        try:
            requests.append(PromptRequest(number, _ids(run, line, raw), most))
        except BadInput as error:
            which = f"prompt {number + 1}" if line.id is None else f"prompt {line.id!r}"
            raise BadInput(f"{which}: {error.message}", error.hint, error.details) from None
    return requests


def answers(
    opened: OpenSession, lines: Sequence[PromptLine], requests: Sequence["PromptRequest"]
) -> Iterator[tuple[int, dict[str, Any], PromptTotals]]:
    """Each line's number and answer as it ends, with what was done so far."""
    started = time.perf_counter()
    queued, counts = opened.session.queue(requests, opened.run.sampling)
    tokenizer = opened.run.tokenizer
    for answer in queued:
        line = lines[answer.number]
        yield (
            answer.number,
            {
                "id": line.id if line.id is not None else answer.number,
                "text": tokenizer.decode(answer.tokens, skip_special_tokens=True),
                "prompt_tokens": len(requests[answer.number].tokens),
                "new_tokens": len(answer.tokens),
                "finish": "stop" if answer.stopped else "length",
            },
            PromptTotals(
                time.perf_counter() - started, counts.prompt_tokens, counts.new_tokens,
                counts.steps, counts.joined,
            ),
        )  # fmt: skip


def _ids(run: PreparedRun, line: PromptLine, raw: bool) -> list[int]:
    if line.tokens is None:
        messages = [m.model_dump() for m in line.messages or []]
        return tokens_of(run, line.prompt if line.prompt is not None else messages, raw=raw)
    rows = run.spec.token_rows
    if not line.tokens or not all(0 <= t < rows for t in line.tokens):
        raise BadInput(f"tokens are at least one, each from 0 to {rows - 1}", _EXAMPLE)
    if len(line.tokens) > run.context:
        raise BadInput(
            f"it has {len(line.tokens):,} tokens, the cache room for {run.context:,}",
            f"--context {len(line.tokens)} gives it room",
        )
    return line.tokens
