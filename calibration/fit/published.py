"""Published accuracy tables -> rows the regression may learn from, or a reason why not.

The transcriptions in profiles/published/raw*.csv are kept as they were found. Everything that
was decided about them is in this file and its table of sources, and repeatable:

    python -m kvpareto.calibration.fit.published      rewrites accuracy.csv and excluded.csv
"""

import csv
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ...planner.formats.configuration import Granularity
from .accuracy_rows import AccuracyRow, write_rows, write_table
from .published_more import kind_of, more_rows, reads_prompt_exactly
from .published_sources import (
    BITS,
    CHANCE,
    CONTEXTS,
    EXCLUDED,
    GRANULARITIES,
    ITEMS,
    KINDS_OF_TASKS,
    REFERENCES,
    TRUST,
    SourceFormat,
)

FOLDER = Path(__file__).resolve().parents[2] / "profiles" / "published"
RAW = ("raw.csv", "raw_weights.csv")
PAIRED = 0.7
"""Correlation of an item's two scores: both runs see the same items, so most of the sampling
error cancels. 0.7 is what per-item agreement of 90 % at a score of 75 % amounts to."""
MIN_SD = 0.004
"""Of a retention, at least: tables round to a tenth of a point, and harnesses differ by as much."""
KEYS_ALONE = re.compile(r"K only$| on K$|^QK ")


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A raw row that is not learned from, and why."""

    raw: dict[str, str]
    reason: str


class _Skip(Exception):
    """Carries the reason for which a raw row is left out."""


def clean(folder: Path = FOLDER) -> tuple[list[AccuracyRow], list[Exclusion]]:
    """Read the raw tables; return what is learned from and what is not, in file order."""
    models = read_models(folder / "models.csv")
    rows: list[AccuracyRow] = []
    excluded: list[Exclusion] = []
    for name in RAW:
        with (folder / name).open(newline="", encoding="utf-8") as file:
            for raw in csv.DictReader(file):
                try:
                    rows.append(_row(raw, models))
                except _Skip as skip:
                    excluded.append(Exclusion(raw, str(skip)))
    return [*rows, *more_rows(folder)], excluded


def read_models(path: Path) -> list[dict[str, str]]:
    """models.csv: shapes and families of the models that rows speak of."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _row(raw: dict[str, str], models: list[dict[str, str]]) -> AccuracyRow:
    for pattern, reason in EXCLUDED:
        if all(text in raw[column] for column, text in pattern.items()):
            raise _Skip(reason)
    task = raw["task"]
    kind = next((k for prefix, k in KINDS_OF_TASKS if task.startswith(prefix)), None)
    if kind is None:
        raise _Skip(f"no kind for task {task!r}")
    layout = _layout(raw)
    trust = next((t for part, t in TRUST if part in raw["source"]), 1.0)
    weight = trust * layout.weight * (0.5 if raw["k_bits"] in BITS else 1.0)
    baseline, value = _scores(raw)
    retention = baseline / value if kind == "perplexity" else value / baseline
    rotates = raw["rotation_or_smoothing"]
    rotated = any(
        word in rotates.lower() for word in ("rotation", "hadamard", "wht", "rht", "orth")
    )
    if rotates == "calibrated rotation":
        raise _Skip("a rotation trained on data is not a Hadamard transform")
    return AccuracyRow(
        model=_model(raw["model"], models),
        task=task,
        kind="long_reasoning" if _thinks(raw) else kind_of(task.replace("_", " "), kind),
        context=next(c for prefix, c in CONTEXTS if task.startswith(prefix)),
        # A table whose baseline has the same quantized weights speaks of the cache alone.
        weight_bits=16.0 if raw["k_bits"] != "16" else float(raw["weight_bits"]),
        k_bits=_bits(raw["k_bits"]),
        v_bits=_bits(raw["v_bits"] or "16"),
        granularity=layout.granularity,
        group_size=layout.group_size,
        block_tokens=layout.block_tokens,
        residual=layout.residual,
        smoothing="smoothing" in rotates,
        rotate_k=(rotated or layout.rotates) and rotates != "rotation V only",
        rotate_v=(rotated or layout.rotates) and not KEYS_ALONE.search(rotates),
        protected_layers=(0,) if "layer 0 kept bf16" in rotates else (),
        protected_bits=16.0,
        retention=retention,
        sd=_sampling_sd(task, kind, baseline, value, raw["metric"]),
        weight=weight,
        provenance="published",
        source=raw["source"],
        chance=next((c for prefix, c in CHANCE if task.startswith(prefix)), 0.0),
        baseline=0.0 if kind == "perplexity" else _share(raw, baseline),
        exact_prompt=reads_prompt_exactly(layout.residual, raw["granularity"]),
        float_keys=raw["k_bits"].startswith("fp8"),
    )


def _layout(raw: dict[str, str]) -> SourceFormat:
    layout = GRANULARITIES.get(raw["granularity"])
    if layout is None and _bits(raw["k_bits"]) >= 8:
        layout = SourceFormat(Granularity.PER_TOKEN)  # at 8 bits the layout hardly matters
    if layout is None:
        raise _Skip(f"granularity not stated or not ours: {raw['granularity']!r}")
    if raw["group_size"].isdigit():
        layout = replace(layout, group_size=int(raw["group_size"]))
    if raw["residual_window"].isdigit():
        layout = replace(layout, residual=int(raw["residual_window"]))
    return layout


def _bits(text: str) -> float:
    if text in BITS:
        return BITS[text]
    try:
        return float(text)
    except ValueError:
        raise _Skip(f"bits are a mixture or not stated: {text!r}") from None


def _scores(raw: dict[str, str]) -> tuple[float, float]:
    """(baseline, value); some tables have no unquantized row and refer to another one."""
    if raw["baseline"]:
        return float(raw["baseline"]), float(raw["value"])
    for source, model, task, reference in REFERENCES:
        if source in raw["source"] and raw["model"] == model and raw["task"] == task:
            if float(raw["value"]) == reference:
                raise _Skip("this row is the reference of its table")
            return reference, float(raw["value"])
    raise _Skip("no baseline in the table")


def _model(name: str, models: list[dict[str, str]]) -> str:
    text = name.lower().replace(" ", "-")
    for model in models:
        if any(text.startswith(known) for known in model["names"].split("|")):
            return model["key"]
    raise _Skip(f"model not identified: {name!r}")


def _thinks(raw: dict[str, str]) -> bool:
    """Whether the answer comes after thousands of generated tokens."""
    return "gen" in raw["context_tokens"] or (
        raw["task"].lower().startswith(("gpqa", "aime")) and raw["model"] != "Qwen3-8B"
    )


def _sampling_sd(task: str, kind: str, baseline: float, value: float, metric: str) -> float:
    """Sampling error of value / baseline over the same items; 0.01 where items are unknown."""
    items = next((n for prefix, n in ITEMS if task.startswith(prefix)), None)
    if kind == "perplexity" or items is None or "recovery" in metric:
        return 0.01
    p = min(max(baseline / _scale(metric, max(baseline, value)), 0.05), 0.95)
    return max(MIN_SD, math.sqrt(2 * (1 - PAIRED) * p * (1 - p) / items) / p)


def _scale(metric: str, largest: float) -> float:
    """What a score of everything right is."""
    return 120.0 if "/120" in metric else 100.0 if largest > 1.5 else 1.0


def _share(raw: dict[str, str], baseline: float) -> float:
    """The baseline as a share of all items; 0 where a table gives ratios alone."""
    if "recovery" in raw["metric"]:
        return 0.0
    return baseline / _scale(raw["metric"], baseline)


def main() -> None:
    rows, excluded = clean()
    write_rows(FOLDER / "accuracy.csv", rows)
    columns = ("model", "task", "k_bits", "v_bits", "granularity", "value", "source")
    write_table(
        FOLDER / "excluded.csv",
        (*columns, "reason"),
        ([*(e.raw[c] for c in columns), e.reason] for e in excluded),
    )
    print(f"{len(rows)} rows kept, {len(excluded)} excluded")


if __name__ == "__main__":
    main()
