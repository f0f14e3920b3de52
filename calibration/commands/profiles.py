"""The commands `profiles list`, `show`, `export` and `import`, for cli.py to register.

Heavy imports stay inside the commands.
"""

from pathlib import Path
from typing import Annotated

import typer

from .shared_options import AsJson, Show


def register(app: typer.Typer, show: Show) -> None:
    """Add the commands; `show` puts a document on stdout through a printer of `report`."""
    profiles_app = typer.Typer(
        help="What is known about which model and GPU.",
        invoke_without_command=True,
        rich_markup_mode=None,
    )
    app.add_typer(profiles_app, name="profiles")

    @profiles_app.callback()
    def profiles_root(context: typer.Context) -> None:
        """What is known about which model and GPU."""
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    @profiles_app.command("list")
    def profiles_list(context: typer.Context, as_json: AsJson = False) -> None:
        """Name every bundled model, every known GPU, and this machine's calibrations."""
        from ...report.profiles import list_document

        show(context, as_json, list_document(), "profiles", "print_list")

    @profiles_app.command("show")
    def profiles_show(
        context: typer.Context,
        name: Annotated[
            str, typer.Argument(help="A model's hub id or folder, a GPU, or a calibration.")
        ],
        as_json: AsJson = False,
    ) -> None:
        """Show what is known about a model, a GPU or a calibration, and where it comes from.

        \b
        kvpareto profiles show Qwen/Qwen3-8B
        kvpareto profiles show H200
        """
        from ...report.profiles import show_document

        show(context, as_json, show_document(name), "profiles", "print_profile")

    @profiles_app.command("export")
    def profiles_export(
        name: Annotated[str, typer.Argument(help="A calibrated model, as `list` names it.")],
        output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    ) -> None:
        """Write a calibration of this machine to one JSON file.

        \b
        kvpareto profiles export my-model -o my-model.json
        """
        from ..records.export import export_profile

        typer.echo(f"{export_profile(name, output)} rows saved to {output}", err=True)

    @profiles_app.command("import")
    def profiles_import(
        file: Annotated[Path, typer.Argument(help="A file that `export` wrote.")],
    ) -> None:
        """Take over a calibration that was made on another machine.

        \b
        kvpareto profiles import my-model.json
        """
        from ..records.export import import_profile

        typer.echo(f"imported to {import_profile(file)}", err=True)
