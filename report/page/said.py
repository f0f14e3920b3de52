"""What `report` says on a terminal when the page is written."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console


def print_report(document: Mapping[str, Any], console: Console) -> None:
    """Where the page and the figures are."""
    size = document["bytes"] / 1e6
    lines = [f"wrote {document['report']} ({size:.2f} MB, opens in any browser)"]
    lines += [f"wrote {name}" for name in document["figures"]]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
