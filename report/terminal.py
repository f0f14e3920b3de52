"""Plans and estimates as tables a person reads: 80 columns, the same without colour.

Everything is rendered from the JSON document of `report.document`, so that what is shown and
what is saved cannot differ.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..planner.units import GB, GiB, format_bytes, format_tokens
from .plot import Mark, scatter

Document = Mapping[str, Any]

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
    """The recommendation, why, the frontier as table and picture, and the next steps."""
    best = document["recommended"]
    _print(
        console,
        _heading(document),
        _budget(document),
        "",
        Text.assemble(_title(document), (best["config"], "bold")),
        _point(best, budget=document["budget"]),
        "",
        *_listed("Why", document["reasons"]),
        *_listed("Next steps", document["steps"]),
        f"Frontier ({len(document['shown'])} of {len(document['frontier'])} points, "
        f"{document['considered']:,} configurations considered)",
        _frontier(document),
        *_relative_latency(document),
        "",
        _picture(document),
        *_notes(document),
    )


def print_longest(document: Document, console: Console) -> None:
    """`--max-context`: the longest context that fits, for each frontier configuration."""
    table = Table(box=None, pad_edge=False)
    table.add_column("configuration", overflow="fold")
    for name in ("context", "total", "retention"):
        table.add_column(name, justify="right", no_wrap=True)
    limited = any(row["limited_by_model"] for row in document["max_context"])
    for row in document["max_context"]:
        table.add_row(
            row["config"],
            f"{row['max_context']:,}" + ("*" if row["limited_by_model"] else ""),
            format_bytes(row["memory"]["total"]),
            _percent(row["accuracy"]["retention"]),
        )
    _print(
        console,
        _heading(document, context=False),
        _budget(document),
        "",
        table,
        "* the model was made for no more" if limited else "",
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
        table.add_row("  " + label, _seconds(point[f"{key}_s"]), _latency_comment(point, key))
    return table


def _title(document: Document) -> str:
    return "Recommended  " if document["safe"] else "Not safe, risk accepted  "


def _kept(kept: Document, whole: Document | None, more: str = "") -> tuple[str, str]:
    """A retention, and its interval; `whole` says the level and the provenance."""
    ends = f"{_percent(kept['low'])} to {_percent(kept['high'])}"
    if whole is not None:
        ends += f" ({whole['level']:.0%}, {whole['provenance']})"
    return _percent(kept["retention"]), ends + more


def _fixed(size: int) -> str:
    return f", {format_bytes(size)} that does not grow" if size else ""


def _latency_comment(point: Document, key: str) -> str:
    if point["latency"] is None:
        return "name a GPU with --gpu"
    low, high = point["latency"][f"{key}_low_s"], point["latency"][f"{key}_high_s"]
    return f"{_seconds(low)} to {_seconds(high)} ({point['latency']['kind']})"


def _frontier(document: Document) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("configuration", overflow="fold")
    for name in ("total", "retention", "at least", "TTFT", "TPOT"):
        table.add_column(name, justify="right", no_wrap=True)
    by_config = {point["config"]: point for point in document["frontier"]}
    by_config |= {p["config"]: p for p in (document["recommended"], document["next_up"]) if p}
    for point in (by_config[config] for config in document["shown"]):
        here = point["config"] == document["recommended"]["config"]
        relative = (document["relative_latency"] or {"points": {}})["points"].get(point["config"])
        table.add_row(
            "*" if here else "",
            point["config"],
            format_bytes(point["memory"]["total"]),
            _percent(point["accuracy"]["retention"]),
            _percent(point["accuracy"]["low"]),
            *(
                f"{relative[key]:.2f}x" if relative else _seconds(point[f"{key}_s"])
                for key in ("ttft", "tpot")
            ),
            style="bold" if here else "",
        )
    return table


def _relative_latency(document: Document) -> list[str]:
    if not document["relative_latency"]:
        return []
    return [
        "   TTFT and TPOT in multiples of the recommended one's, by the roofline of an",
        f"   {document['relative_latency']['gpu']}; --gpu has the seconds of yours",
    ]


def _picture(document: Document) -> Text:
    best = document["recommended"]
    marks = [_mark(point, "o") for point in document["frontier"]]
    picture = scatter(
        [*marks, _mark(best, "*")],
        x_label="GB",
        y_label="predicted retention; o frontier, * recommended, ┊ budget",
        x_limit=document["budget"] / GB,
    )
    return Text(picture, no_wrap=True)


def _mark(point: Document, symbol: str) -> Mark:
    return Mark(point["memory"]["total"] / GB, point["accuracy"]["retention"], symbol)


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


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 0.1:
        return f"{1000 * value:.1f} ms"
    return f"{value:.2f} s" if value < 100 else f"{value:,.0f} s"
