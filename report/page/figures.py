"""The page's figures as SVG and PNG files for papers, by matplotlib (the extra `figures`).

They draw the same document as page.js does, at the budget and context that were asked.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...planner.libraries import importing
from ...planner.whole_file import writing
from ..verify import LABELS

_TERMS = ("weights", "kv", "activation", "overhead")
_LEAST_LOSS = 1e-3
"""Smaller losses are drawn there: no benchmark resolves them."""
_GB = 1e9
Row = Mapping[str, Any]
Draw = Callable[[Any], None]


def draw_figures(data: Mapping[str, Any], folder: Path) -> list[str]:
    """Write each figure of page_data() into `folder`; the names of the files. Raises
    MissingDependency without matplotlib, BadInput where the folder cannot be written."""
    with importing("drawing figures", "figures"):
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    with writing(folder, "name another folder, or make room"):
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, draw in _figures(data):
            figure, axes = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
            draw(axes)
            for kind in ("svg", "png"):
                path = folder / f"{name}.{kind}"
                figure.savefig(path, dpi=200)
                written.append(str(path))
            pyplot.close(figure)
    return written


def _figures(data: Mapping[str, Any]) -> list[tuple[str, Draw]]:
    figures: list[tuple[str, Draw]] = []
    for plan in data["plans"]:
        end = f"-{_file_name(plan['document']['model'])}" if len(data["plans"]) > 1 else ""
        asked = plan["document"]["context"]
        answers = next((a for a in plan["answers"] if a["context"] == asked), plan["answers"][0])
        if "by_budget" in answers:
            answers = answers["by_budget"][plan["budgets"].index(plan["document"]["budget"])]
        figures.append((f"frontier{end}", _frontier(plan, answers["points"])))
        if plan["configs"]:
            over = plan["configs"][0]["over_contexts"]
            figures.append((f"memory{end}", _memory(plan, over)))
            figures.append((f"retention{end}", _retention(plan, over)))
            for key in ("ttft_s", "tpot_s"):
                timed = [row for row in over if row[key] is not None]
                if len(timed) > 1:
                    figures.append((f"{key[:4]}{end}", _time(plan, timed, key)))
    for number, receipt in enumerate(data["receipts"], 1):
        figures.append((f"receipt-{number}", _receipt(receipt)))
    return figures


def _file_name(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.") or "model"


def _frontier(plan: Row, points: Sequence[Row]) -> Draw:
    def draw(axes: Any) -> None:
        budget, best = plan["document"]["budget"], plan["recommended"]
        for p in points:
            x, kept = p["total"] / _GB, max(1 - p["retention"], _LEAST_LOSS)
            color = "C3" if p["config"] == best else "C0" if p["total_high"] <= budget else "0.6"
            ends = [max(1 - p[end], _LEAST_LOSS) for end in ("high", "low")]
            axes.plot([x, x], ends, color=color, alpha=0.4, linewidth=1)
            axes.plot(x, kept, "*" if p["config"] == best else "o", color=color)
        axes.axvline(budget / _GB, linestyle="--", color="C3", linewidth=1)
        axes.set(yscale="log", xlabel="total memory, GB", ylabel="loss (1 - retention)")
        axes.invert_yaxis()
        axes.set_title(f"{plan['document']['model']}: {best}", fontsize="medium")

    return draw


def _memory(plan: Row, rows: Sequence[Row]) -> Draw:
    def draw(axes: Any) -> None:
        contexts = [row["context"] for row in rows]
        terms = [[row[term] / _GB for row in rows] for term in _TERMS]
        axes.stackplot(contexts, terms, labels=[LABELS[term] for term in _TERMS])
        axes.axhline(plan["document"]["budget"] / _GB, linestyle="--", color="C3", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="context, tokens", ylabel="GB", title=plan["recommended"])
        axes.legend(loc="upper left")

    return draw


def _time(plan: Row, rows: Sequence[Row], key: str) -> Draw:
    def draw(axes: Any) -> None:
        contexts, name = [row["context"] for row in rows], key[:4]
        ends = [[row[f"{name}_{end}"] for row in rows] for end in ("low", "high")]
        axes.plot(contexts, [row[key] for row in rows], marker="o")
        axes.fill_between(contexts, *ends, alpha=0.2)
        axes.set_xscale("log", base=2)
        axes.set(yscale="log", xlabel="context, tokens", ylabel=f"{name.upper()}, s")
        axes.set_title(plan["recommended"])

    return draw


def _retention(plan: Row, rows: Sequence[Row]) -> Draw:
    def draw(axes: Any) -> None:
        contexts = [row["context"] for row in rows]
        for task in rows[0]["tasks"]:
            kept, low, high = zip(*(row["tasks"][task] for row in rows), strict=True)
            axes.plot(contexts, kept, marker="o", label=task.replace("_", " "))
            axes.fill_between(contexts, low, high, alpha=0.1)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="context, tokens", ylabel="retention", title=plan["recommended"])
        axes.legend()

    return draw


def _receipt(receipt: Row) -> Draw:
    def draw(axes: Any) -> None:
        terms = [t for t in receipt["terms"] if t["unit"] == "bytes" and t["predicted"]][::-1]
        for y, term in enumerate(terms):
            axes.plot([term["low"] / _GB, term["high"] / _GB], [y, y], color="0.7", linewidth=6)
            axes.plot(term["predicted"] / _GB, y, "|", color="black", markersize=12)
            if term["measured"] is not None:
                axes.plot(term["measured"] / _GB, y, "o", color="C0")
        axes.set_yticks(range(len(terms)), [LABELS.get(t["name"], t["name"]) for t in terms])
        axes.set(xlabel="GB", title=f"{receipt['config']}: predicted | and measured o")

    return draw
