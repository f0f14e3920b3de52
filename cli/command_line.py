"""One command line from its arguments to its exit code: the answer, or what went wrong.

With `--json` every end, help and mistakes too, is one JSON document on stdout.
"""

import io
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

import typer

from .. import interrupt
from ..planner.light_dataclass import dataclass
from .completion import check_completion

if TYPE_CHECKING:
    from ..report.failure import Failure

# typer keeps click to itself; a usage error's base class is all that is needed of it.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


@dataclass
class CommandOutput:
    """What a command line says on stdout: with `--json` the one document it ends with."""

    as_json: bool
    document: Mapping[str, Any] | None = None


def show(
    context: typer.Context, as_json: bool, document: Mapping[str, Any], module: str, printer: str
) -> None:
    """The document on stdout: as JSON (`run_command` prints it), or through
    `report.<module>.<printer>`."""
    answer: CommandOutput = context.find_root().obj
    if as_json or answer.as_json:
        answer.as_json, answer.document = True, document
    else:
        from ..report.output import print_tables

        print_tables(document, module, printer)


def run_command(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run one command line of `app` and return its exit code.

    Expected failures are lines on stderr, and with `--json` a document on stdout.
    """
    answer = CommandOutput(as_json=interrupt.asks_for_json(arguments))
    try:
        if not answer.as_json:
            code, failure = _call(app, arguments, answer)
        else:
            with redirect_stdout(io.StringIO()) as said:
                code, failure = _call(app, arguments, answer)
            with interrupt.waits():
                _print_answer(answer, failure, said.getvalue())
                sys.stdout.flush()
                interrupt.answered(True)
        with interrupt.waits():
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return 0
    except OSError as error:  # stdout itself: a full disk
        _drop_stdout()
        code, failure = _failed(error)
    if failure is not None:
        _say(_for_reader(failure))
    return code


def _call(
    app: typer.Typer, arguments: Sequence[str], answer: CommandOutput
) -> tuple[int, "Failure | None"]:
    """The exit code of the command, and what went wrong where something did."""
    try:
        check_completion(arguments)
        try:
            code = app(list(arguments), prog_name="kvpareto", standalone_mode=False, obj=answer)
        finally:
            interrupt.raise_it(False)
        if code == interrupt.CODE:  # what typer makes of KeyboardInterrupt
            return _failed(KeyboardInterrupt())
        return code if isinstance(code, int) else 0, None
    except SystemExit as leaving:  # shell completion leaves so
        if isinstance(leaving.__context__, BrokenPipeError):  # what click makes of it
            raise leaving.__context__ from None
        return leaving.code if isinstance(leaving.code, int) else 0, None
    except BrokenPipeError:
        raise
    except _UsageError as error:
        from .usage import misuse

        return 2, misuse(app, arguments, error)
    except typer.Abort:
        return _failed(KeyboardInterrupt())
    except (Exception, KeyboardInterrupt) as error:
        return _failed(error)


def _failed(error: BaseException) -> tuple[int, "Failure"]:
    """Exit code and words for `error`. A fault of the program is raised where somebody looks."""
    from ..report.failure import TRACEBACK, failure_of

    failure = failure_of(error)
    if failure.fault and os.environ.get(TRACEBACK):
        raise error
    return failure.code, failure


def _print_answer(answer: CommandOutput, failure: "Failure | None", said: str) -> None:
    """The one document of `--json`. What was printed besides, by whatever library, goes to stderr,
    but where it is the answer itself (help, the version) it is the document's text."""
    from ..report.output import print_json

    if failure is not None:
        print_json(failure.document())
    elif answer.document is not None:
        print_json(answer.document)
    else:
        print_json({"schema": 1, "text": said})
        return
    _say(said.splitlines())


def _for_reader(failure: "Failure") -> list[str]:
    """A line each, for whatever reads them; folded between words where a terminal shows them."""
    if sys.stderr is None or not sys.stderr.isatty():
        return failure.lines()
    from ..report.layout.folding import folded_sentence, terminal_columns

    width = terminal_columns(sys.stderr)
    return [part for line in failure.lines() for part in folded_sentence(line, width, 7)]


def _say(lines: Sequence[str]) -> None:
    """Lines on stderr, if anybody is there to read them."""
    with suppress(OSError):
        for line in lines:
            typer.echo(line, err=True)


def _drop_stdout() -> None:
    """The reader of our output went away, or the disk is full: nothing is to be flushed at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
