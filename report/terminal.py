"""Plans and estimates as a person reads them: the answer first, the same without colour.

Everything is rendered from the JSON document of `report.document`, so that what is shown and
what is saved cannot differ.
"""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..planner.units import GiB, format_bytes, format_parameters
from .answer import engine_of, lowest_kind, print_answer, print_point, title
from .frontier import print_frontier, print_rows
from .lines import print_line, print_whole, together
from .numbers import percent, seconds
from .servers.serving import asked_words, card_rows, sequences

Document = Mapping[str, Any]
Reminder = tuple[str, str]
"""A label and a configuration, for report/output.py to say once more below long output."""
WIDE = 100
"""Columns from which a plan shows everything."""
_BESIDE = 60
"""Columns from which a term's comment stands beside it."""

_END_MARKS = {"model": "*", "accuracy": "+", "time": "^", "memory": "", "search": "~"}
"""Behind a longest context: what ends it."""
_ENDS = {
    "model": "what the model was made for",
    "accuracy": "the last length that keeps enough of the score at its lower end",
    "time": "the last length that is as fast as asked",
    "memory": "the budget",
    "search": "the longest that is looked for: the model names no limit",
}

_TERMS = (
    ("weights", "weights"),
    ("kv", "KV cache"),
    ("activation", "activation peak"),
    ("overhead", "overhead"),
)


def print_estimate(document: Document, console: Console) -> None:
    """One configuration: memory term by term, accuracy, latency."""
    heading, notes = _heading(document, document), _notes(document)
    _print(console, heading, "", *_point(document, document, console), *notes)


def print_plan(document: Document, console: Console) -> Reminder:
    """The answer; all of it where the terminal is wide, or where there is none to scroll."""
    if not console.is_terminal or console.width >= WIDE:
        return print_plan_details(document, console)
    print_answer(document, console, more=True)
    _print(console, *_notes(document))
    if snippet := document.get("snippet"):
        console.print()
        console.print(Text(snippet["text"].rstrip()), soft_wrap=True, highlight=False)
    return _reminder(document)


def print_plan_details(document: Document, console: Console) -> Reminder:
    """The answer, its terms, why, the next steps, the frontier as table and picture."""
    print_answer(document, console, more=False)
    best = document["recommended"]
    _print(
        console,
        "",
        _budget(document),
        *_point(document, best, console),
        "",
        *_listed("Why", document["reasons"]),
        *_listed("Next steps", document["steps"]),
    )
    print_frontier(document, console)
    _print(console, *_notes(document))
    if snippet := document.get("snippet"):
        console.print()
        console.print(Text(snippet["text"].rstrip()), soft_wrap=True, highlight=False)
    return _reminder(document)


def _reminder(document: Document) -> Reminder:
    """The configuration, to be said once more where the answer has scrolled off."""
    return title(document), document["recommended"]["config"]


def print_longest(document: Document, console: Console) -> Reminder:
    """`--max-context`: the longest context of all as the answer, then what keeps more of the
    score or prefills in longer chunks at the price of context."""
    best, *others = document["max_context"]
    answer = f"{best['max_context']:,} tokens"
    _print(console, _heading(document, best, context=False), _budget(document), "")
    print_whole(console, "Longest", Text.assemble((answer, "bold"), " with"))
    print_whole(console, "", Text(best["config"], "bold"))
    print_point(document, best, console)
    print_line(console, "Ends there", _ENDS[best["limited_by"]])
    if others:
        _print(console, "", "Alternatives")
        _print_alternatives(document, others, console)
    _print(console, *_notes(document))
    return "Longest", best["config"]


def _print_alternatives(document: Document, rows: Sequence[Document], console: Console) -> None:
    timed = document["gpu"] is not None
    table = [["", "configuration", "context", "total", "retention", "at least", *["TTFT"] * timed]]
    table += [
        [
            "",
            row["config"],
            f"{row['max_context']:,}" + _END_MARKS[row["limited_by"]],
            format_bytes(row["memory"]["total"]),
            percent(row["accuracy"]["retention"]),
            percent(row["accuracy"]["low"]),
            *[seconds(row["ttft_s"])] * timed,
        ]
        for row in rows
    ]
    print_rows(table, console, [""] * len(table))
    marks = {_END_MARKS[row["limited_by"]]: _ENDS[row["limited_by"]] for row in rows}
    _print(console, *[f" {mark} ends at {end}" for mark, end in marks.items() if mark])


def _print(console: Console, *parts: RenderableType) -> None:
    console.print(Group(*parts), highlight=False, markup=False)


def _heading(document: Document, point: Document, *, context: bool = True) -> Text:
    parts = [_parameters(document)]
    if context:
        parts.append(asked_words(document))
    parts += [sequences(document, point), f"engine {engine_of(document)}"]
    return Text.assemble((document["model"], "bold"), "  " + ", ".join(parts))


def _parameters(document: Document) -> str:
    count = f"{format_parameters(document['parameters'])} parameters"
    low, high = document["parameters_low"], document["parameters_high"]
    if low == high:
        return count
    return f"{count} ({format_parameters(low)} to {format_parameters(high)})"


def _point(document: Document, point: Document, console: Console) -> list[RenderableType]:
    """A line a term: its name, its value and a comment, which has a line of its own where the
    terminal is narrow."""
    memory = point["memory"]
    growth, batch = point["kv_bytes_per_token"], document["batch"]
    budget = document.get("budget")
    each = " of each sequence" if batch > 1 else ""
    comments = {"kv": f"{growth // batch:,} bytes a token{each}{_fixed(point['kv_fixed_bytes'])}"}
    for key in ("weights", "kv"):
        low, high = memory[f"{key}_low"], memory[f"{key}_high"]
        if low < high:
            comments[key] = f"{format_bytes(low)} to {format_bytes(high)}, by how it is read"
    rows = list(card_rows(point)) if "serving" in point else []
    rows += [("for this request:", "", "")] if rows else []
    rows += [(name, format_bytes(memory[key]), comments.get(key, "")) for key, name in _TERMS]
    share = f"; at most {memory['total_high'] / budget:.0%} of the budget" if budget else ""
    low, high = format_bytes(memory["total_low"]), format_bytes(memory["total_high"])
    rows.append(("total", format_bytes(memory["total"]), f"{low} to {high} (95 %){share}"))
    accuracy = point["accuracy"]
    rows.append(("retention", *_kept(accuracy, accuracy)))
    for kinds, numbers in _alike(accuracy["tasks"]):
        weakest = _shown_above(accuracy, kinds)
        first, *same = [kind.replace("_", " ") for kind in kinds]
        if len(kinds) == len(accuracy["tasks"]):
            rows.append(("  every kind", *numbers))
            continue
        others = f"; {', '.join(same)} too" if same else ""
        rows.append((f"  {first}", numbers[0], numbers[1] + weakest + others))
    for key, label in (("ttft", "TTFT"), ("tpot", "TPOT")):
        rows.append((label, seconds(point[f"{key}_s"]), _latency_comment(point, key)))
    if console.width < _BESIDE:
        return [_stacked(rows, console.width)]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value, comment in rows:
        table.add_row(
            "  " + name, value, together(comment), style="bold" if name == "total" else ""
        )
    return [table]


def _stacked(rows: Sequence[tuple[str, str, str]], columns: int) -> Text:
    """Terms with their comments below them; a long name has lines of its own, the last of which
    its value stands beside."""
    longest = max(len(value) for _, value, _ in rows)
    width = min(max(len(name) for name, _, _ in rows), max(12, columns - longest - 2))
    lines = []
    for name, value, comment in rows:
        indent = " " * (len(name) - len(name.lstrip()))
        *above, last = wrap(
            name.strip(), width, initial_indent=indent, subsequent_indent=indent + "  "
        )
        lines += [f" {part}" for part in above]
        lines.append(f" {last.ljust(width)} {value.rjust(longest)}".rstrip())
        lines += wrap(together(comment), columns, initial_indent="    ", subsequent_indent="    ")
    return Text("\n".join(lines))


def _shown_above(accuracy: Document, kinds: Sequence[str]) -> str:
    """Which of what stands above these kinds of task are the source."""
    weakest, lowest = accuracy["task"] in kinds, lowest_kind(accuracy) in kinds
    if weakest and lowest:
        return ", shown above"
    return ", the prediction above" if weakest else ", the lower end above" if lowest else ""


def _kept(kept: Document, whole: Document | None) -> tuple[str, str]:
    """A retention, and its interval; `whole` says the level and the provenance."""
    ends = f"{percent(kept['low'])} to {percent(kept['high'], upper=True)}"
    if whole is not None:
        ends += f" ({whole['level']:.0%}, {whole['provenance']})"
    return percent(kept["retention"]), ends


def _alike(tasks: Document) -> list[tuple[list[str], tuple[str, str]]]:
    """Kinds of tasks with what is kept of them; kinds that are shown alike are one row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for kind, kept in tasks.items():
        rows.setdefault(_kept(kept, None), []).append(kind)
    return [(kinds, numbers) for numbers, kinds in rows.items()]


def _fixed(size: int) -> str:
    return f", {format_bytes(size)} that does not grow" if size else ""


def _latency_comment(point: Document, key: str) -> str:
    if point["latency"] is None:
        return "not predicted for this engine" if "serving" in point else "name a GPU with --gpu"
    low, high = point["latency"][f"{key}_low_s"], point["latency"][f"{key}_high_s"]
    like = point[f"{key}_s"]
    return f"{seconds(low, like)} to {seconds(high, like)} ({point['latency']['kind']})"


def _listed(title: str, lines: list[str]) -> list[RenderableType]:
    if not lines:
        return []
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row("  -", together(line))
    return [title, table, ""]


def _notes(document: Document) -> list[RenderableType]:
    notes = document["warnings"]
    return ["", *_listed("Notes", notes)[:-1]] if notes else []


def _budget(document: Document) -> str:
    size, gpu = document["budget"], document["gpu"]
    text = f"budget {format_bytes(size)} ({size / GiB:.2f} GiB)"
    return f"{text}, GPU {gpu}" if gpu else text
