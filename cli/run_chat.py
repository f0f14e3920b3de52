"""The commands `run` and `chat`. Heavy imports stay inside them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..planner.errors import BadInput, one_line
from .command_line import show
from .generation_options import with_shared
from .options import AsJson, chosen_model
from .prompts_typed import check_turns, prompt_text, turns

if TYPE_CHECKING:
    from ..calibration.running.open_session import RunOptions

AT_ONCE = 8
"""Sequences of a file of prompts that run at once, unless said."""
System = Annotated[str | None, typer.Option("--system", help="System message.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(chat)


@with_shared
def run(
    here: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="[PROMPT]", help="Text. Without it, or with -, stdin is read."),
    ] = None,
    *,
    shared: dict[str, Any],
    batch: Annotated[
        Path | None,
        typer.Option(
            "--batch", help='File of prompts, - for stdin, one JSON line each: {"prompt": "…"}.'
        ),
    ] = None,
    at_once: Annotated[
        int, typer.Option("--at-once", help="Sequences of --batch that run together.")
    ] = AT_ONCE,
    raw: Annotated[bool, typer.Option("--raw", help="Do not apply the chat template.")] = False,
    system: System = None,
    as_json: AsJson = False,
) -> None:
    """Generate text with the recommended configuration. Tokens are printed at once.

    \b
    kvpareto run -m ./my-model "Once upon a time"
    kvpareto run --plan plan.json "Once upon a time"
    kvpareto run -m ./my-model --config w4a16-k4v4-g64+pc512 < question.txt
    kvpareto run -m ./my-model --batch prompts.jsonl --at-once 16
    """
    options = _options(shared, at_once if batch is not None else 1, "run")
    if batch is not None and prompt is not None:
        raise BadInput("a prompt beside --batch", "put it into the file, or leave one out")
    if batch is not None and system is not None:
        raise BadInput(
            "--system beside --batch", "the file's lines have messages, the system's first"
        )
    if batch is None and at_once != AT_ONCE:
        raise BadInput("--at-once without --batch", "one prompt is one sequence")
    quiet = as_json or here.find_root().obj.as_json
    if batch is not None:
        from ..calibration.running.prompts_file import answer_lines, read_lines

        document = answer_lines(options, read_lines(batch), raw=raw, quiet=quiet, say=_say)
    else:
        from ..calibration.running.one_prompt import answer_prompt

        text = prompt_text(prompt)
        document = answer_prompt(options, text, system, raw=raw, quiet=quiet, say=_say)
    if quiet:
        show(here, True, document, "terminal", "")


@with_shared
def chat(
    here: typer.Context,
    *,
    shared: dict[str, Any],
    system: System = None,
    as_json: AsJson = False,
) -> None:
    """Chat with a model under its recommended configuration. Ctrl-D ends the chat.

    \b
    kvpareto chat -m ./my-model
    kvpareto chat --plan plan.json --system "Answer in one sentence."
    """
    options = _options(shared, 1, "chat")
    from ..calibration.running.conversation import check_chat, converse
    from ..calibration.running.open_session import open_session, prepare

    quiet = as_json or here.find_root().obj.as_json
    check_turns()
    ready = prepare(options)
    check_chat(ready, system)
    with open_session(ready) as opened:
        _say(opened.heading)
        document = converse(opened, turns(), system=system, quiet=quiet, say=_say)
    if quiet:
        show(here, True, document, "terminal", "")


def _options(shared: dict[str, Any], batch: int, command: str) -> "RunOptions":
    from ..calibration.running.open_session import RunOptions, check

    model = chosen_model(None, shared["model"])
    options = RunOptions(**{**shared, "model": model}, batch=batch, command=command)
    check(options)
    return options


def _say(line: str) -> None:
    typer.echo(one_line(line, 4096), err=True)
