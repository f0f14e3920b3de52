"""The commands `report` and `ui`.

Heavy imports stay inside the commands.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..planner.errors import BadInput, one_line
from .command_line import show
from .options import AsJson

_MOST_PLANS = 4


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
    from ..planner.whole_file import check_output, write_whole
    from ..report.page.build import build_page
    from ..report.page.data import page_data
    from ..report.page.sources import read_sources

    if not files:
        raise BadInput(
            "no plan to draw", "kvpareto plan -m MODEL --budget 12GB --save plan.json makes one"
        )
    check_output(output, *files)
    sources = read_sources(files)
    if len(sources.plans) > 1 and not compare:
        raise BadInput(f"{len(sources.plans)} plans", "--compare draws them side by side")
    if len(sources.plans) > _MOST_PLANS:
        raise BadInput(
            f"{len(sources.plans)} plans are too many for one picture",
            f"compare at most {_MOST_PLANS}",
        )
    data = page_data([(plan.document, plan.request) for plan in sources.plans], sources.receipts)
    drawn = _draw(data, figures) if figures is not None else []
    page = build_page(data)
    write_whole(output, page)
    notes = [
        f"{plan.document['model']}: drawn from the plan alone, {plan.why_not}"
        for plan in sources.plans
        if plan.why_not is not None
    ]
    document = {
        "schema": 1,
        "report": str(output),
        "bytes": len(page.encode()),
        "figures": drawn,
        "notes": notes,
    }
    for note in notes:
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


def _draw(data: Mapping[str, Any], folder: Path) -> list[str]:
    from ..report.page.figures import draw_figures

    return draw_figures(data, folder)
