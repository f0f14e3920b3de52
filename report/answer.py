"""The answer of a plan in at most ten lines: what to run, what it costs, how to start it.

What a person copies (a configuration, a command) is never broken by a line end of ours.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..planner.units import format_bytes, format_tokens
from .numbers import percent, seconds

Document = Mapping[str, Any]
_LABEL = 13
_BAR = 24


def print_answer(document: Document, console: Console, *, more: bool) -> None:
    """The answer; `more`: whether to say where the rest is."""
    best = document["recommended"]
    _line(console, "", _asked(document))
    console.print()
    title = "Recommended" if document["safe"] else "Not safe"
    _whole(console, title, Text(best["config"], "bold"))
    _line(console, "Memory", _memory(best, document["budget"], console.width))
    if document.get("host_only"):
        _line(console, "Where", "all of it on the processor: --gpu NAME for a card")
    _line(console, "Retention", _retention(document))
    _line(console, "Speed", _speed(document))
    for label, command in run_lines(document):
        _whole(console, label, Text(command))
    if more:
        _line(console, "More", "--details: terms, why, next steps, frontier")


def run_lines(document: Document) -> list[tuple[str, str]]:
    """What to type, with a label each: the engine's own start, or a verification by our runtime."""
    if commands := document.get("commands"):
        return [(one["label"], one["command"]) for one in commands]
    return []


def print_reminder(document: Document, console: Console) -> None:
    """The configuration once more, where the answer has scrolled off."""
    title = "Recommended" if document["safe"] else "Not safe"
    console.print()
    _whole(console, title, Text(document["recommended"]["config"], "bold"))


def _asked(document: Document) -> str:
    parts = [
        f"{document['model']}  {document['parameters'] / 1e9:.2f} B parameters",
        f"{format_tokens(document['context'])} + {document['output']} tokens",
        f"batch {document['batch']}",
        f"engine {document['engine']}",
    ]
    return ", ".join(parts)


def _memory(best: Document, budget: int, width: int) -> str:
    memory = best["memory"]
    share = min(1.0, memory["total"] / budget)
    cells = _BAR if width >= 80 else 10
    full = round(share * cells)
    bar = "█" * full + "░" * (cells - full)
    most = format_bytes(memory["total_high"])
    return f"{bar} {format_bytes(memory['total'])} of {format_bytes(budget)}, at most {most}"


def _retention(document: Document) -> str:
    accuracy = document["recommended"]["accuracy"]
    kind = accuracy["task"].replace("_", " ")
    which = f"{kind}" if document["task"] else f"{kind}, the weakest kind"
    risk = "" if document["safe"] else "; the risk is accepted"
    text = f"{percent(accuracy['retention'])}, at least {percent(accuracy['low'])}"
    return f"{text} ({which}; {accuracy['provenance']}){risk}"


def _speed(document: Document) -> str:
    best = document["recommended"]
    if best["latency"] is None:
        return "name a GPU with --gpu"
    ends = best["latency"]
    first = f"TTFT {seconds(best['ttft_s'])}, at most {seconds(ends['ttft_high_s'])}"
    each = f"TPOT {seconds(best['tpot_s'])}, at most {seconds(ends['tpot_high_s'])}"
    return f"{first}; {each}"


def _line(console: Console, label: str, text: str) -> None:
    """A line that may be folded between words, under where its text begins."""
    if not label:
        console.print(Text(text))
        return
    line = Table.grid()
    line.add_column(width=_LABEL, style="dim", no_wrap=True)
    line.add_column()
    line.add_row(Text(label), Text(text))
    console.print(line)


def _whole(console: Console, label: str, text: Text) -> None:
    """A line that is never folded: a terminal that is narrower shows it on two of its own."""
    console.print(
        Text.assemble((label.ljust(_LABEL), "dim"), text), soft_wrap=True, highlight=False
    )
