"""Receipts for a person: what was wrong first, then every number beside its prediction."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..planner.units import GiB, format_bytes, format_percent, format_time, format_tokens
from .layout.tables import rows_that_fit

Document = Mapping[str, Any]

LABELS = {
    "weights": "weights",
    "kv": "KV cache",
    "activation": "activation peak",
    "overhead": "overhead",
    "total": "total",
    "allocated_resident": "allocated, resident",
    "allocated_peak": "allocated, peak",
    "ttft": "TTFT",
    "tpot": "TPOT, median",
    "tpot_p95": "TPOT, 95 %",
    "tokens": "tokens in the cache",
    "throughput": "throughput",
}
_SIDES = {"inside": "inside", "better": "better", "worse": "WORSE", None: "-"}


def print_receipt(document: Document, console: Console) -> None:
    """One verification."""
    parts = _receipt(document, console.width)
    console.print(Group(*parts), highlight=False, markup=False, crop=False)


def print_sweep(document: Document, console: Console) -> None:
    """Several, a line each, and what was wrong with those that are not verified."""
    rows: list[Sequence[str]] = []
    for one in document["receipts"]:
        total = _term(one, "total")
        off = total["difference"]
        rows.append(
            (
                one["config"],
                format_tokens(one["context"]),
                format_bytes(one["budget"]),
                _value(total["measured"], "bytes"),
                "-" if off is None else f"{off / total['predicted']:+.1%}",
                _percent(one["retention"]["measured"]),
                "verified" if one["verified"] else "NOT",
            )
        )
    for none in document["unplanned"]:
        shape = format_tokens(none["context"]), format_bytes(none["budget"])
        rows.append(("nothing fits", *shape, "-", "-", "-", "-"))
    titles = "configuration", "context", "budget", "measured", "off", "retention", ""
    wrong = [f"{one['config']}: {line}" for one in document["receipts"] for line in one["wrong"]]
    parts: list[RenderableType] = [_listed("Wrong", wrong), ""] if wrong else []
    parts += [rows_that_fit(titles, rows, console.width), "", Text(document["verdict"], "bold")]
    console.print(Group(*parts), highlight=False, markup=False, crop=False)


def _receipt(document: Document, width: int) -> list[RenderableType]:
    budget = document["budget"]
    heading = (
        f"{format_tokens(document['context'])} + {document['output']} tokens, batch "
        f"{document['batch']}, engine {document['engine']}, on {document['gpu'] or 'a CPU'}"
    )
    between = "  " if len(document["model"]) + 2 + len(document["config"]) <= width else "\n"
    parts: list[RenderableType] = [
        Text.assemble(
            (document["model"], "bold"),
            between,
            document["config"],
            no_wrap=True,
            overflow="ignore",
        ),
        heading,
        f"budget {format_bytes(budget)} ({budget / GiB:.2f} GiB)",
        "",
        Text(document["verdict"], "bold"),
        "",
    ]
    if document["wrong"]:
        parts += [_listed("Wrong", document["wrong"]), ""]
    if document["corrected"]:
        parts += [_listed("Run instead", _corrected(document["corrected"])), ""]
    parts += [_terms(document, width)]
    if document["peak_phase"]:
        parts.append(f"the peak was reached in {document['peak_phase']}")
    parts += ["", *_tasks(document, width)]
    parts += [_listed("Cap", _cap(document["cap"]))]
    if document["notes"]:
        parts += ["", _listed("Notes", document["notes"])]
    return parts


def _terms(document: Document, width: int) -> RenderableType:
    rows = []
    for term in document["terms"]:
        unit, off, low = term["unit"], term["difference"], term["low"]
        share = "-" if off is None or not term["predicted"] else f"{off / term['predicted']:+.1%}"
        between = f"{_value(low, unit)} to {_value(term['high'], unit)}"
        rows.append(
            (
                "  " + LABELS[term["name"]],
                _value(term["predicted"], unit),
                _value(term["measured"], unit) if term["measured"] is not None else "not measured",
                share,
                _SIDES[term["side"]],
                term["note"] or ("exact" if low == term["high"] else between),
            )
        )
    titles = "", "predicted", "measured", "off", "", "interval"
    bold = [number for number, term in enumerate(document["terms"]) if term["name"] == "total"]
    return rows_that_fit(titles, rows, width, fold=5, bold=bold)


def _tasks(document: Document, width: int) -> list[RenderableType]:
    whole = document["retention"]
    of = f" of {whole['task'].replace('_', ' ')}" if whole["task"] else ""
    predicted = (
        f"retention{of} predicted {_percent(whole['predicted'])}, {_percent(whole['low'])} to "
        f"{_percent(whole['high'])} ({whole['level']:.0%}, {whole['provenance']})"
    )
    if not document["tasks"]:
        return [predicted + ("; not measured" if whole["predicted"] < 1 else ""), ""]
    rows = []
    for task in document["tasks"]:
        error = task["retention_sd"]
        rows.append(
            (
                "  " + task["task"],
                str(task["items"]),
                f"{task['score']:.3f}",
                "-" if task["reference"] is None else f"{task['reference']:.3f}",
                _percent(task["retention"]) + (f" ± {100 * error:.1f}" if error else ""),
                f"{100 * task['predicted_low']:.1f} to {100 * task['predicted_high']:.1f} %",
                _SIDES[task["side"]],
                task["note"] or (task["reference_from"] or ""),
            )
        )
    titles = "task", "items", "score", "unquantized", "retention", "predicted", "", ""
    table = rows_that_fit(titles, rows, width, fold=7)
    return [predicted + f"; measured {_percent(whole['measured'])}", table, ""]


def _corrected(corrected: Document) -> list[str]:
    lines = [corrected["because"] + f"; that leaves {format_bytes(corrected['budget'])}"]
    best = corrected["recommended"]
    if best is None:
        return [*lines, corrected["reason"]]
    total, accuracy = best["memory"]["total_high"], best["accuracy"]
    return [
        *lines,
        f"{best['config']}: at most {format_bytes(total)}, keeps {_percent(accuracy['retention'])},"
        f" at least {_percent(accuracy['low'])}",
        corrected["reason"],
    ]


def _cap(cap: Document) -> list[str]:
    if cap["margin"] is None:
        return [cap["how"]]
    held = f"allocator at most {_value(cap['allowed'], 'bytes')}; outside of it "
    held += f"{_value(cap['context'], 'bytes')}, margin {format_bytes(cap['margin'])}"
    return [cap["how"], held + f"; the device held {_value(cap['device_used'], 'bytes')}"]


def _term(document: Document, name: str) -> Document:
    term: Document = next(one for one in document["terms"] if one["name"] == name)
    return term


def _listed(title: str, lines: list[str]) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row("  -", line)
    return Group(title, table)


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "bytes":
        return format_bytes(int(value))
    if unit == "tokens":
        return f"{value:,.0f}"
    if unit == "tokens per second":
        return f"{value:,.0f} tokens/s"
    return format_time(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else format_percent(value)
