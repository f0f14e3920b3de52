"""The commands `report` and `ui`.

Heavy imports stay inside the commands.
"""

from pathlib import Path
from typing import Annotated

import typer

from ..planner.errors import one_line
from .command_line import show
from .options import AsJson


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(report)
    app.command()(ui)


def report(
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Plans and receipts that --save wrote."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path(
        "report.html"
    ),
    figures: Annotated[
        Path | None,
        typer.Option(help="Also write the figures as SVG and PNG into this folder."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show several plans side by side.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a plan and its receipts as one HTML page with figures.

    \b
    kvpareto plan -m Qwen/Qwen3-8B --gpu 4090 --save plan.json
    kvpareto report plan.json -o report.html
    kvpareto report plan.json receipt.json -o report.html
    kvpareto report --compare a.json b.json -o report.html
    """
    from ..report.page.report_file import write_report

    document = write_report(files or [], output, figures, compare=compare)
    for note in document["notes"]:
        typer.echo(one_line(f"note: {note}"), err=True)
    show(context, as_json, document, "page.said", "print_report")


def ui(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="The first model.")] = None,
    gpu: Annotated[str | None, typer.Option(help="The first GPU.")] = None,
    budget: Annotated[str | None, typer.Option(help="The first budget.")] = None,
    port: Annotated[int, typer.Option(help="Port. 0 takes a free port.")] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address; open no browser.")
    ] = False,
) -> None:
    """Plan in the browser. The page is served on this machine only.

    \b
    kvpareto ui
    kvpareto ui Qwen/Qwen3-8B --gpu 4090
    """
    from ..planner.hardware.gpu_set import find_gpus
    from ..planner.load_model import load_model
    from ..planner.units import parse_bytes
    from ..report.page.server import serve

    if model is not None:
        load_model(model)
    if gpu is not None and gpu != "auto":
        find_gpus(gpu)
    if budget is not None:
        parse_bytes(budget)
    serve(
        {"model": model or "Qwen/Qwen2.5-7B-Instruct", "gpu": gpu, "budget": budget},
        port,
        open_browser=not no_browser,
    )
