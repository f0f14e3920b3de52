"""Plans and estimates as a person reads them: the answer first, the same without colour.

Everything is rendered from the JSON document of `report.document`, so that what is shown and
what is saved cannot differ.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..planner.units import GiB, format_bytes, format_tokens
from .answer import print_answer, print_reminder
from .frontier import print_frontier, print_rows
from .numbers import percent, seconds

Document = Mapping[str, Any]
WIDE = 100
"""Columns from which a plan shows everything."""

_END_MARKS = {"model": "*", "accuracy": "+", "memory": ""}
"""Behind a longest context: what ends it."""

_TERMS = (
    ("weights", "weights"),
    ("kv", "KV cache"),
    ("activation", "activation peak"),
    ("overhead", "overhead"),
)


def print_estimate(document: Document, console: Console) -> None:
    """One configuration: memory term by term, accuracy, latency."""
    _print(console, _heading(document), "", _point(document), *_notes(document))


def print_plan(document: Document, console: Console) -> None:
    """The answer; all of it where the terminal is wide, or where there is none to scroll."""
    if console.is_terminal and console.width < WIDE:
        print_answer(document, console, more=True)
        _print(console, *_notes(document))
    else:
        print_plan_details(document, console)


def print_plan_details(document: Document, console: Console) -> None:
    """The answer, its terms, why, the next steps, the frontier as table and picture."""
    print_answer(document, console, more=False)
    best = document["recommended"]
    _print(
        console,
        "",
        _budget(document),
        _point(best, budget=document["budget"]),
        "",
        *_listed("Why", document["reasons"]),
        *_listed("Next steps", document["steps"]),
    )
    print_frontier(document, console)
    _print(console, *_notes(document))
    print_reminder(document, console)


def print_longest(document: Document, console: Console) -> None:
    """`--max-context`: the longest context that fits, for each frontier configuration."""
    timed = document["gpu"] is not None
    rows = [["", "configuration", "context", "total", "retention", "at least", *["TTFT"] * timed]]
    rows += [
        [
            "",
            row["config"],
            f"{row['max_context']:,}" + _END_MARKS[row["limited_by"]],
            format_bytes(row["memory"]["total"]),
            percent(row["accuracy"]["retention"]),
            percent(row["accuracy"]["low"]),
            *[seconds(row["ttft_s"])] * timed,
        ]
        for row in document["max_context"]
    ]
    ends = {row["limited_by"] for row in document["max_context"]}
    _print(console, _heading(document, context=False), _budget(document), "")
    print_rows(rows, console, ["", "bold", *[""] * (len(rows) - 2)])
    _print(
        console,
        *["* the model was made for no more"] * ("model" in ends),
        *["+ beyond it the lower end of retention keeps too little"] * ("accuracy" in ends),
        *_notes(document),
    )


def _print(console: Console, *parts: RenderableType) -> None:
    console.print(Group(*parts), highlight=False, markup=False)


def _heading(document: Document, *, context: bool = True) -> Text:
    parts = [_parameters(document)]
    if context:
        parts.append(f"{format_tokens(document['context'])} + {document['output']} tokens")
    parts += [f"batch {document['batch']}", f"engine {document['engine']}"]
    return Text.assemble((document["model"], "bold"), "  " + ", ".join(parts))


def _parameters(document: Document) -> str:
    count = f"{document['parameters'] / 1e9:.2f} B parameters"
    low, high = document["parameters_low"], document["parameters_high"]
    return count if low == high else f"{count} ({low / 1e9:.2f} to {high / 1e9:.2f})"


def _point(point: Document, budget: int | None = None) -> Table:
    memory, table = point["memory"], Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    growth = point["kv_bytes_per_token"]
    comments = {"kv": f"{growth:,} bytes a token" + _fixed(point["kv_fixed_bytes"])}
    for key in ("weights", "kv"):
        low, high = memory[f"{key}_low"], memory[f"{key}_high"]
        if low < high:
            comments[key] = f"{format_bytes(low)} to {format_bytes(high)}, by how it is read"
    for key, label in _TERMS:
        table.add_row("  " + label, format_bytes(memory[key]), comments.get(key, ""))
    share = f"; at most {memory['total_high'] / budget:.0%} of the budget" if budget else ""
    low, high = format_bytes(memory["total_low"]), format_bytes(memory["total_high"])
    table.add_row(
        "  total", format_bytes(memory["total"]), f"{low} to {high} (95 %){share}", style="bold"
    )
    accuracy = point["accuracy"]
    table.add_row("  retention", *_kept(accuracy, accuracy))
    for kind, kept in accuracy["tasks"].items():
        weakest = ", shown above" if kind == accuracy["task"] else ""
        table.add_row(f"    {kind.replace('_', ' ')}", *_kept(kept, None, weakest))
    for key, label in (("ttft", "TTFT"), ("tpot", "TPOT")):
        table.add_row("  " + label, seconds(point[f"{key}_s"]), _latency_comment(point, key))
    return table


def _kept(kept: Document, whole: Document | None, more: str = "") -> tuple[str, str]:
    """A retention, and its interval; `whole` says the level and the provenance."""
    ends = f"{percent(kept['low'])} to {percent(kept['high'])}"
    if whole is not None:
        ends += f" ({whole['level']:.0%}, {whole['provenance']})"
    return percent(kept["retention"]), ends + more


def _fixed(size: int) -> str:
    return f", {format_bytes(size)} that does not grow" if size else ""


def _latency_comment(point: Document, key: str) -> str:
    if point["latency"] is None:
        return "name a GPU with --gpu"
    low, high = point["latency"][f"{key}_low_s"], point["latency"][f"{key}_high_s"]
    return f"{seconds(low)} to {seconds(high)} ({point['latency']['kind']})"


def _listed(title: str, lines: list[str]) -> list[RenderableType]:
    if not lines:
        return []
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row("  -", line)
    return [title, table, ""]


def _notes(document: Document) -> list[RenderableType]:
    notes = document["warnings"]
    return ["", *_listed("Notes", notes)[:-1]] if notes else []


def _budget(document: Document) -> str:
    size, gpu = document["budget"], document["gpu"]
    text = f"budget {format_bytes(size)} ({size / GiB:.2f} GiB)"
    return f"{text}, GPU {gpu}" if gpu else text
