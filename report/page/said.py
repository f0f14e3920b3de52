"""What `report` says on a terminal when the page is written."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from ..layout.folding import folded


def print_report(document: Mapping[str, Any], console: Console) -> None:
    """Where the page and the figures are."""
    size = document["bytes"] / 1e6
    lines = [f"wrote {document['report']} ({size:.2f} MB, opens in any browser)"]
    lines += [f"wrote {name}" for name in document["figures"]]
    text = "\n".join(part for line in lines for part in folded(line, console.width))
    console.print(text, highlight=False, markup=False, soft_wrap=True)
