"""The commands that rooms of their own hold: each is imported when it is named."""

from collections.abc import Mapping
from typing import Any

import typer

from .command_run import CommandOutput


def show(
    context: typer.Context, as_json: bool, document: Mapping[str, Any], module: str, printer: str
) -> None:
    """The document on stdout: as JSON (`run` prints it), or through `report.<module>.<printer>`."""
    answer: CommandOutput = context.find_root().obj
    if as_json or answer.as_json:
        answer.as_json, answer.document = True, document
    else:
        from .report.output import print_tables

        print_tables(document, module, printer)


def register_calibrate(app: typer.Typer) -> None:
    from .calibration.commands import calibrate

    calibrate.register(app, show)


def register_verify(app: typer.Typer) -> None:
    from .calibration.commands import verify

    verify.register(app, show)


def register_run_and_chat(app: typer.Typer) -> None:
    from .calibration.commands import run

    run.register(app, show)


def register_profiles(app: typer.Typer) -> None:
    from .calibration.commands import profiles

    profiles.register(app, show)


def register_report_and_ui(app: typer.Typer) -> None:
    from .report.page import commands

    commands.register(app, show)
