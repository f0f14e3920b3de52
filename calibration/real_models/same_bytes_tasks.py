"""Scores of tasks under each method at the same bytes, paired with the unquantized model's."""

from collections.abc import Sequence

import numpy as np

from ...planner.formats.configuration import Configuration
from ..fit.measured_models import ABLE, CHANCE
from ..grid.reading import decode_items
from .rows import CHOICES, Row

FULL = str(Configuration())
WITHIN = 4.0
"""Points of the score within which a cache is called as good as 16 bits."""
_INTRODUCTION = f"""## Tasks

Points of the score that each cache loses or gains beside 16 bits, on the same items, with the
standard error of that difference (questions of one text are taken as independent). Needles are fed
their ideal answers, one question after another; GSM8K is generated (8 shots, exact match), common
words too; MMLU is the likeliest of four letters behind five examples, ten questions of each of 57
subjects. "yes" or "no": within {WITHIN:g} points or not, by the difference and twice its error;
"?" where that leaves it open, "chance" where the model in 16 bits is less than {100 * ABLE:g}
points above what guessing scores, so that no cache has much to lose.
"""


def tasks_table(rows: Sequence[tuple[Row, Row]]) -> str:
    """A table for each model and context (0: GSM8K), and for its choices."""
    parts = [_INTRODUCTION]
    groups: dict[tuple[str, int, str], list[tuple[Row, Row]]] = {}
    for header, row in rows:
        key = row["model"], row["context"], row["kind"]
        groups.setdefault(key, []).append((header, row))
    for (model, context, kind), group in sorted(groups.items()):
        by_config = {_text(row): row for _, row in group}
        whole = by_config.get(FULL)
        if whole is None or not whole["tasks"] or len(by_config) < 2:
            continue
        header = group[0][0]
        device = header["environment"].get("gpu") or "a CPU"
        tied = f" ({header['source']['tied']})" if "tied" in header["source"] else ""
        title = f"{model}{tied}, {_place(context, kind)}, {device}{_maps(group)}"
        parts.append(_table(title, whole["tasks"], by_config))
    return "\n".join(parts)


def difference(whole: Row, task: Row) -> tuple[float, float]:
    """Points of the score by which `task` is above `whole` on the same items, and their error."""
    scores = [np.array(decode_items(one["items"])) / one["parts"] for one in (whole, task)]
    gaps = 100 * (scores[1] - scores[0])
    return float(gaps.mean()), float(gaps.std(ddof=1) / len(gaps) ** 0.5)


def verdict(gap: float, error: float) -> str:
    """Whether a difference lies above -WITHIN: with twice its error, or not, or not known."""
    if gap - 2 * error >= -WITHIN:
        return "yes"
    return "no" if gap + 2 * error < -WITHIN else "?"


def _table(title: str, whole: Row, by_config: dict[str, Row]) -> str:
    others = [row["tasks"] for config, row in by_config.items() if config != FULL]
    names = [name for name in whole if any(name in tasks for tasks in others)]
    said = ", ".join(f"{name} {100 * whole[name]['score']:.1f} %" for name in names)
    cells = " | ".join(f"{name} | within {WITHIN:g}" for name in names)
    lines = [f"**{title}**; 16 bits: {said}.\n", f"| cache | {cells} |"]
    lines.append("|---|" + "---:|---|" * len(names))
    for config, row in by_config.items():
        if config == FULL or not row["tasks"]:
            continue
        columns = []
        for name in names:
            if name not in row["tasks"]:
                columns.append("– | –")
                continue
            gap, error = difference(whole[name], row["tasks"][name])
            able = whole[name]["score"] - CHANCE.get(name, 0.0) >= ABLE
            said_of_it = verdict(gap, error) if able else "chance"
            columns.append(f"{gap:+.1f} ± {error:.1f} | {said_of_it}")
        lines.append(f"| `{config.removeprefix('w16a16-')}` | {' | '.join(columns)} |")
    return "\n".join([*lines, ""])


def _maps(group: Sequence[tuple[Row, Row]]) -> str:
    """What the maps of the table were learnt from, where it is not the included prose."""
    learnt = {
        f", maps from {header['maps']['tokens']:,} tokens of {header['maps']['text']}"
        for header, row in group
        if "+affine" in row["config"] and "maps" in header
    }
    return "".join(sorted(learnt))


def _text(row: Row) -> str:
    """A row's configuration without its chunk, which is every row's."""
    return str(Configuration.parse(row["config"]).with_chunk(None))


def _place(context: int, kind: str) -> str:
    if context:
        return f"{context:,} tokens"
    return "five examples" if kind == CHOICES else "eight shots"
