"""One prompt answered: text as it comes, then how fast it came.

A prompt goes through the model's chat template where it has one, as a message of the user's, since
that is what such a model was trained on; `raw` sends the text as it is.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...planner.errors import BadInput, printable
from .open_session import OpenSession, PreparedRun, RunOptions, open_session, prepare

Messages = Sequence[Mapping[str, str]]


@dataclass
class Spoken:
    """An answer as it grows. Seconds are of this process's clock; `first_s` from the prompt to the
    first token, `rest_s` from there to the last."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    first_s: float = 0.0
    rest_s: float = 0.0
    stopped: bool = False
    text: str = ""

    @property
    def tokens_per_s(self) -> float | None:
        """After the first token; None where there was no other."""
        return (self.new_tokens - 1) / self.rest_s if self.new_tokens > 1 and self.rest_s else None

    @property
    def summary(self) -> str:
        """One line for stderr."""
        parts = f"{self.prompt_tokens:,} tokens of prompt, first token after {self.first_s:.2f} s"
        if self.tokens_per_s is None:
            return f"{parts}, {self.new_tokens} generated"
        return f"{parts}, {self.new_tokens} generated at {self.tokens_per_s:.1f} tokens/s"

    def document(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "finish": "stop" if self.stopped else "length",
            "ttft_s": self.first_s,
            "tokens_per_s": self.tokens_per_s,
        }


def answer_prompt(
    options: RunOptions,
    prompt: str,
    system: str | None,
    *,
    raw: bool,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What `kvpareto run --json` prints. Unless `quiet` the answer is on stdout as it comes; `say`
    gets a line before it and one behind it.

    Raises BadInput, NothingFits, MissingDependency, Interrupted.
    """
    if raw and system is not None:
        raise BadInput("--system beside --raw", "the chat template places a system message")
    ready = prepare(options)
    asked = prompt if system is None else messages_of(prompt, system)
    ids = tokens_of(ready, asked, raw=raw)
    with open_session(ready) as opened:
        say(opened.heading)
        said = show(opened, ids, quiet=quiet)
        say(said.summary)
        return {**opened.document(), **said.document()}


def messages_of(text: str, system: str | None) -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system is not None else []
    return [*first, {"role": "user", "content": text}]


def tokens_of(run: PreparedRun, prompt: str | Messages, *, raw: bool) -> list[int]:
    """The prompt as tokens. Raises BadInput for one that is empty, that the cache has no room for
    or the model no embedding, and for messages to a model without a chat template."""
    from ...runtime.generation.tokenization import encode

    tokenizer: Any = run.tokenizer
    if isinstance(prompt, str):
        if not prompt:
            raise BadInput("the prompt is empty", "give some text")
        templated = tokenizer.chat_template and not raw
        prompt = messages_of(prompt, None) if templated else prompt
    ids: list[int] = encode(prompt, tokenizer, pad_id=0)[0][0].tolist()
    if max(ids) >= run.spec.token_rows:
        raise BadInput(
            f"the prompt has token {max(ids)}, the model has {run.spec.token_rows}",
            "a word of it is no word of this model, an image's perhaps: leave it out",
        )
    if len(ids) > run.context:
        raise BadInput(
            f"the prompt has {len(ids):,} tokens, the cache room for {run.context:,}",
            f"--context {len(ids)} gives it room",
            {"prompt_tokens": len(ids), "context": run.context},
        )
    return ids


def speak(opened: OpenSession, ids: Sequence[int]) -> Iterator[tuple[str, Spoken]]:
    """Pieces of the answer with what is known of it so far; the last piece may be empty."""
    from ...runtime.generation.tokenization import stream_text

    session, said = opened.session, Spoken(prompt_tokens=len(ids))
    started = time.perf_counter()

    def tokens() -> Iterator[int]:
        begun = None
        for step in session.steps(list(ids), opened.run.output, opened.run.sampling):
            now = time.perf_counter()
            if begun is None:
                begun, said.first_s = now, now - started
            said.rest_s = now - begun
            said.new_tokens += 1
            said.stopped = step[0] in session.stops
            yield step[0]

    tokenizer: Any = session.tokenizer
    for piece in stream_text(tokens(), tokenizer, session.stops):
        said.text += piece
        yield piece, said
    yield "", said


def show(opened: OpenSession, ids: Sequence[int], *, quiet: bool) -> Spoken:
    """The answer on stdout as it comes, unless `quiet`. What a terminal would obey is replaced."""
    terminal = sys.stdout.isatty()
    said = Spoken()
    try:
        for piece, so_far in speak(opened, ids):
            said = so_far
            if not quiet:
                sys.stdout.write(_shown(piece) if terminal else piece)
                sys.stdout.flush()
    finally:
        if not quiet and said.text and not said.text.endswith("\n"):
            sys.stdout.write("\n")
    return said


def _shown(text: str) -> str:
    return "\t".join(printable(part) for part in text.split("\t"))
