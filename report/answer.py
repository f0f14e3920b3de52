"""The answer of a plan in at most ten lines: what to run, what it costs, how to start it."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from ..planner.search.request import SAFE_LOSS
from ..planner.units import format_bytes, format_parameters, format_seconds
from .lines import LABEL, print_command, print_line, print_whole
from .numbers import percent, seconds
from .servers.serving import (
    alone_words,
    asked_words,
    compared_words,
    own_words,
    sequences,
    serves_line,
)

Document = Mapping[str, Any]
_BAR = 24
_NO_COMMAND = ("Get",)
"""Labels of what is no line for a shell."""


def print_answer(document: Document, console: Console, *, more: bool) -> None:
    """The answer; `more`: whether to say where the rest is."""
    best = document["recommended"]
    print_line(console, "", _asked(document))
    console.print()
    print_whole(console, title(document), Text(best["config"], "bold"))
    print_point(document, best, console)
    for label, command in run_lines(document):
        if "\n" in command:  # the text of a file
            console.print(Text(label, "dim"))
            console.print(Text(command), soft_wrap=True, highlight=False)
        elif label in _NO_COMMAND:
            _print_file(console, label, command)
        else:
            print_command(console, label, command)
    for other in document.get("compared") or ():
        print_line(console, other["engine"], compared_words(other, document["because"]))
    if own := document.get("own_runtime"):
        print_line(console, "Our runtime", own_words(own))
    if more:
        _near(document, console)
        print_line(console, "More", "--details: terms, why, next steps, frontier")
    else:
        for other in document["elsewhere"]:
            print_command(console, other["engine"], other["command"])


def _print_file(console: Console, label: str, text: str) -> None:
    """What a file is, and its address: below it where both are wider than the terminal."""
    what, _, address = text.rpartition(" ")
    if console.is_terminal and LABEL + len(text) > console.width:
        print_line(console, label, what)
        print_whole(console, "", Text(address))
    else:
        print_whole(console, label, Text(text))


def title(document: Document) -> str:
    """What a plan's configuration is called."""
    return "Recommended" if document["safe"] else "Not safe"


def print_point(document: Document, best: Document, console: Console) -> None:
    """Memory, retention and speed of the configuration that is the answer."""
    print_line(console, "Memory", _memory(best, document["budget"], console.width))
    if document.get("host_only"):
        print_line(console, "Where", "all of it on the processor: --gpu NAME for a card")
    if "serving" in best:
        print_line(console, "Serves", serves_line(best))
    print_line(console, "Retention", _retention(document, best))
    print_line(console, "Speed", _speed(best) + _within(document, best))


def _within(document: Document, best: Document) -> str:
    """The targets that were asked for and that the expected seconds meet, in a few words."""
    asked = [
        f"--{name} {format_seconds(document[f'{name}_target_s'])}"
        for name in ("ttft", "tpot")
        if document.get(f"{name}_target_s") is not None
        and best[f"{name}_s"] is not None
        and best[f"{name}_s"] <= document[f"{name}_target_s"]
    ]
    return f"; within {', '.join(asked)}" if asked else ""


def engine_of(document: Document) -> str:
    """The engine's name; behind the program's that people run it in, where that was named."""
    front = document.get("front")
    return f"{front} ({document['engine']})" if front else str(document["engine"])


def run_lines(document: Document) -> list[tuple[str, str]]:
    """What to type, with a label each: the engine's own start, or a verification by our runtime."""
    return [(one["label"], one["command"]) for one in document.get("commands") or []]


def _near(document: Document, console: Console) -> None:
    """What is nearest in other engines, and how each is planned; the whole commands are shown
    with --details."""
    near = [f"{one['config']} by --engine {one['engine']}" for one in document["elsewhere"]]
    if near:
        print_line(console, "Elsewhere", "nearest is " + ", ".join(near))


def _asked(document: Document) -> str:
    parts = [
        f"{document['model']}  {format_parameters(document['parameters'])} parameters",
        asked_words(document),
        sequences(document, document["recommended"]),
        f"engine {engine_of(document)}",
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


def _retention(document: Document, best: Document) -> str:
    accuracy = best["accuracy"]
    kind = accuracy["task"].replace("_", " ")
    which = f"{kind}" if document["task"] else f"{kind}, the weakest generated kind"
    ends = lowest_kind(accuracy)
    which += f", at least that of {ends.replace('_', ' ')}" if ends != accuracy["task"] else ""
    risk = "" if document.get("safe", True) else "; the risk is accepted"
    text = f"{percent(accuracy['retention'])}, at least {percent(accuracy['low'])}"
    if accuracy["provenance"] == "unknown":  # an interval is all that is known
        text = f"{percent(accuracy['low'])} to {percent(accuracy['high'])}, bounds alone"
    doubts = "" if document["task"] else _kinds_below(accuracy)
    return f"{text} ({which}; {accuracy['provenance']}){doubts}{risk}"


def lowest_kind(accuracy: Document) -> str:
    """The kind of task whose lower end is the promise: the weakest kind, or one that is predicted
    to keep more and is less certain."""
    tasks = accuracy["tasks"]
    if percent(tasks[accuracy["task"]]["low"]) == percent(accuracy["low"]):
        return str(accuracy["task"])
    lowest = (kind for kind, kept in tasks.items() if kept["low"] == accuracy["low"])
    return next(lowest, str(accuracy["task"]))


def _kinds_below(accuracy: Document) -> str:
    """Kinds of task outside the promise that are predicted to keep less than it says, and those
    that may lose more than a safe plan does."""
    promised = min(1 - SAFE_LOSS, accuracy["low"])
    known = accuracy["provenance"] != "unknown"
    said = []
    for kind, kept in accuracy["tasks"].items():
        name, shown = kind.replace("_", " "), percent(kept["retention"])
        if (
            known
            and kept["retention"] < accuracy["retention"]
            and shown != percent(accuracy["retention"])
        ):
            said.append(f"{name} keeps {shown}")
        elif kept["low"] < promised:
            said.append(f"{name} may keep less")
    return "".join(f"; {each}" for each in said)


def _speed(best: Document) -> str:
    if best["latency"] is None:
        return "not predicted for this engine" if "serving" in best else "name a GPU with --gpu"
    ends = best["latency"]
    ttft, tpot = best["ttft_s"], best["tpot_s"]
    first = f"TTFT {seconds(ttft)}, at most {seconds(ends['ttft_high_s'], like=ttft)}"
    each = f"TPOT {seconds(tpot)}, at most {seconds(ends['tpot_high_s'], like=tpot)}"
    return f"{first}{alone_words(best) if 'serving' in best else ''}; {each}"
