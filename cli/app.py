"""The app and its commands: parse, call, render.

Data goes to stdout, everything else to stderr. A mistake is one `error:` line, one `hint:`
line and exit code 2; exit code 1 says that nothing fits, 3 that a library or GPU is missing.
With `--json` every end, help and mistakes too, is one JSON document on stdout.
"""

import gc
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated

import typer

from .. import interrupt
from ..report.layout.help_pages import FoldedGroup
from .command_line import CommandOutput, run_command
from .options import AsJson
from .said_once import OnceTyper


def _print_version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"kvpareto {__version__}")
        raise typer.Exit


def application(arguments: Sequence[str] = ()) -> typer.Typer:
    """The app with the command that `arguments` name; with all where they name none.

    Reading the options of every command takes longer than a plan's arithmetic.
    """
    app = OnceTyper(
        name="kvpareto",
        cls=FoldedGroup,
        invoke_without_command=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    )
    app.callback()(_root)
    named = next((word for word in arguments if not word.startswith("-")), None)
    modules = [_MODULES[named]] if named in _MODULES else _MODULES.values()
    for module in dict.fromkeys(modules):
        import_module(f".{module}", __package__).register(app)
    return app


def _root(
    context: typer.Context,
    as_json: AsJson = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Choose weight bits, KV-cache bits and prefill chunk for a model and a memory budget.

    Start with: kvpareto plan --model Qwen/Qwen2.5-7B-Instruct --budget 12GB
    """
    if context.invoked_subcommand not in _SHORT:
        gc.set_threshold(100_000, 50, 50)
        interrupt.raise_it(True)  # they have files, devices or processes to close
    if not isinstance(context.obj, CommandOutput):
        context.obj = CommandOutput(as_json)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_MODULES = {
    "plan": "plan_estimate",
    "estimate": "plan_estimate",
    "calibrate": "calibrate",
    "verify": "verify",
    "run": "run_chat",
    "chat": "run_chat",
    "profiles": "profiles",
    "report": "report_ui",
    "ui": "report_ui",
}
"""The commands as `--help` lists them, and the module here that adds each to an app."""
_SHORT = "plan", "estimate"
"""Commands that are over before they leave garbage, and have nothing to close."""


def main() -> None:
    """Entry point of the `kvpareto` script: exits with the code that says how it went."""
    interrupt.install()
    for name in ("stdout", "stderr"):  # a closed one is None to Python
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for the whole process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our box characters
    code = run(sys.argv[1:])
    with suppress(OSError):
        sys.stderr.flush()
    if "torch" in sys.modules:
        sys.exit(code)
    # A plan leaves no files, threads or devices behind, and taking the interpreter apart, object
    # by object, would take another tenth of its time.
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    return run_command(application(arguments), arguments)
