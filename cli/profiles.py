"""The commands `profiles list`, `show`, `check`, `export` and `import`.

Heavy imports stay inside the commands.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..planner.errors import one_line
from ..report.layout.help_pages import FoldedGroup
from .command_line import show
from .options import AsJson


def register(app: typer.Typer) -> None:
    """Add the commands."""
    profiles_app = typer.Typer(
        cls=FoldedGroup,
        help="Show the known models, GPUs and calibrations.",
        invoke_without_command=True,
        rich_markup_mode=None,
    )
    app.add_typer(profiles_app, name="profiles")
    profiles_app.callback()(profiles_root)
    profiles_app.command("list")(profiles_list)
    profiles_app.command("show")(profiles_show)
    profiles_app.command("check")(profiles_check)
    profiles_app.command("export")(profiles_export)
    profiles_app.command("import")(profiles_import)


def profiles_root(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the known models, GPUs and calibrations."""
    del as_json  # the command line reads it wherever it stands
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def profiles_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List the bundled models, the known GPUs and this machine's calibrations."""
    from ..report.profiles import list_document

    show(context, as_json, list_document(), "profiles", "print_list")


def profiles_show(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A model's hub id or folder, a GPU, or a calibration."),
    ],
    as_json: AsJson = False,
) -> None:
    """Show the data of a model, a GPU or a calibration, with their sources.

    \b
    kvpareto profiles show Qwen/Qwen3-8B
    kvpareto profiles show H200
    """
    from ..report.profiles import show_document

    show(context, as_json, show_document(name), "profiles", "print_profile")


def profiles_check(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder of config.json files, or one.")
    ],
    as_json: AsJson = False,
) -> int:
    """Compare the planner's reading of configs with the models that transformers builds.

    Parameters are compared group by group, and the caches of two prompts by their bytes. No
    weights are loaded. The exit code is 1 if anything differs or is refused, 2 if a file cannot
    be read.

    \b
    kvpareto profiles check ~/models
    """
    from ..calibration.config_check.check import check_folder

    document = check_folder(folder)
    show(context, as_json, document, "profiles", "print_check")
    code: int = document.get("exit_code", 0)
    if code == 2 and not (as_json or context.find_root().obj.as_json):
        for name in ("error", "hint"):
            typer.echo(one_line(f"{name}: {document[name]}", 4096), err=True)
    return code


def profiles_export(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A calibrated model, as `list` names it.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    as_json: AsJson = False,
) -> None:
    """Write a calibration of this machine to one JSON file; affine maps go beside it.

    \b
    kvpareto profiles export my-model -o my-model.json
    """
    from ..calibration.records.export import export_document, maps_beside

    document = export_document(name, output)
    maps = document["affine"]
    beside = "" if maps is None else f", affine maps to {maps_beside(output)}: keep both together"
    _said(context, as_json, document, f"{document['rows']} rows saved to {output}{beside}")


def profiles_import(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `export` wrote.")],
    as_json: AsJson = False,
) -> None:
    """Import a calibration from another machine.

    \b
    kvpareto profiles import my-model.json
    """
    from ..calibration.records.export import import_document, maps_beside

    document = import_document(file)
    missing = document["maps_missing"]
    lost = f" without its affine maps: {maps_beside(file)} is not there" if missing else ""
    _said(context, as_json, document, f"imported to {document['folder']}{lost}")


def _said(context: typer.Context, as_json: bool, document: dict[str, Any], line: str) -> None:
    """`line` on stderr for a person; `document` for a program that asked."""
    typer.echo(one_line(line, 4096), err=True)
    if as_json or context.find_root().obj.as_json:
        show(context, True, document, "", "")
