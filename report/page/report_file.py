"""`kvpareto report`: plans and receipts read, page and figures written, and what is said of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...planner.errors import BadInput
from ...planner.whole_file import check_output, write_whole
from .build import build_page
from .data import page_data
from .sources import read_sources

MOST_PLANS = 4
"""Frontiers that one picture can hold apart."""


def write_report(
    files: Sequence[Path], output: Path, figures: Path | None, *, compare: bool
) -> dict[str, Any]:
    """What `kvpareto report --json` prints; `figures` is the folder of SVG and PNG, None for none.

    Raises BadInput for files that are no plans or receipts, for several plans that are not to be
    compared, and for places that cannot be written; MissingDependency for figures without
    matplotlib.
    """
    if not files:
        raise BadInput(
            "no plan to draw", "kvpareto plan -m MODEL --budget 12GB --save plan.json makes one"
        )
    check_output(output, *files)
    sources = read_sources(files)
    if len(sources.plans) > 1 and not compare:
        raise BadInput(f"{len(sources.plans)} plans", "--compare draws them side by side")
    if len(sources.plans) > MOST_PLANS:
        raise BadInput(
            f"{len(sources.plans)} plans are too many for one picture",
            f"compare at most {MOST_PLANS}",
        )
    data = page_data([(plan.document, plan.request) for plan in sources.plans], sources.receipts)
    drawn: list[str] = []
    if figures is not None:
        from .figures import draw_figures

        drawn = draw_figures(data, figures)
    page = build_page(data)
    write_whole(output, page)
    return {
        "schema": 1,
        "report": str(output),
        "bytes": len(page.encode()),
        "figures": drawn,
        "notes": [
            f"{plan.document['model']}: drawn from the plan alone, {plan.why_not}"
            for plan in sources.plans
            if plan.why_not is not None
        ],
    }
