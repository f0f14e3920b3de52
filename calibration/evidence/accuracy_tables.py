"""Held-out errors as tables: for the terminal, for the docs, and as JSON values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...planner.accuracy.formula import Floats
from ...planner.accuracy.predictor import Predictor
from ...planner.errors import BadInput
from ..fit.accuracy_rows import KINDS
from ..fit.cross_validation import HeldOut, groups
from ..fit.interval_widths import FALLEN
from ..fit.mixed_effects import KnownModel
from .baselines import BASELINES, leave_one_model_out
from .known_results import known_results_table
from .marked_tables import DOCS, markdown_table, shown_lines

OURS = "this regression"
NAMED = "the same, task named"
MEAN_OF_NORMAL = (2.0 / np.pi) ** 0.5
"""Mean absolute error of a normal variable, in its standard deviations: what sampling alone leaves
of a perfect prediction."""

WORST = 8
"""Groups of rows that are named as those with most of the error."""
FEW_BITS, LONG = 2, 8192
"""Bits and tokens of the parts of the rows that are shown apart."""
NAMED_BY = 32
"""Letters of a source that tell it from the others."""

LEFT_MODELS, LEFT_SOURCES = "its model and kin left out", "its source left out"
FOUND = "found afterwards, in no fit"
DIGEST = (
    ("cache", LEFT_MODELS, "sources", "cache, a model left out"),
    ("weights alone", LEFT_MODELS, "parts", "published, weights alone"),
    ("cache", LEFT_SOURCES, "sources", "cache"),
    ("weights alone", LEFT_SOURCES, "sources", "weights alone"),
    ("cache", FOUND, "next", "cache"),
    ("weights alone, 4 bits", FOUND, "next", "weights alone, 4 bits"),
)
"""Of the digest: what is quantized, how it was predicted, and the table and line that have it."""

Errors = Mapping[str, Floats]
"""Of each way to predict, ours first: the absolute error of every row."""
Folds = Mapping[Any, Sequence[int]]
"""Row numbers of what was left out together."""


@dataclass(frozen=True)
class Report:
    """Markdown tables by name, and the summary that goes into the JSON."""

    tables: Mapping[str, str]
    summary: Mapping[str, Any]

    @property
    def text(self) -> str:
        return "\n\n".join(f"[{name}]\n{table}" for name, table in self.tables.items())


def make_report(
    payload: Mapping[str, Any],
    unseen: HeldOut,
    known: HeldOut,
    models: Mapping[str, KnownModel],
) -> Report:
    """Errors and coverage of both hold-outs, beside the baselines in the same folds."""
    errors = {OURS: _errors(unseen), NAMED: np.abs(_scores(unseen) - unseen.named)} | {
        name: np.abs(_scores(unseen) - leave_one_model_out(unseen.rows, models, baseline))
        for name, baseline in BASELINES.items()
    }
    folds = groups(unseen.rows, models)
    tables = {
        "facts": markdown_table(*known_results_table(Predictor(payload), unseen.rows, models)),
        **_error_tables(payload["z"], unseen, known, errors, folds, models),
    }
    return Report(tables, _rounded(_summary(payload["z"], unseen, known, errors, folds)))


def digest_table(folder: Path = DOCS) -> str:
    """The main figures of other tables, as the pages of `folder` have them.

    Raises BadInput where no page has one, or it has not the line.
    """
    lossless = shown_lines("floors", folder)
    column = lossless["MAE"].index("no loss")
    lines: list[list[object]] = []
    for what, how, name, line in DIGEST:
        table = shown_lines(name, folder)
        if line not in table:
            raise BadInput(f"<!-- {name} --> has no line {line!r}", "DIGEST names the lines.")
        header, cells = table["rows"], table[line]
        low = header.index("below 0.9")
        own = cells[header.index("no loss")] if "no loss" in header else lossless[what][column]
        all_rows = (cells[header.index(title)] for title in ("number", "MAE"))
        held, fallen = (cells[header.index("coverage", start)] for start in (0, low))
        lines.append([f"{what}, {how}", *all_rows, own, held, cells[low], fallen])
    header = ["rows", "number", "MAE", "no loss", "coverage", "below 0.9", "coverage"]
    return markdown_table(header, lines)


def _summary(
    z: Mapping[str, float], unseen: HeldOut, known: HeldOut, errors: Errors, folds: Folds
) -> dict[str, Any]:
    covered = unseen.covered(z["unseen"])
    return {
        "leave_one_model_out": {
            "rows": len(unseen.rows),
            "groups": len(folds),
            "mae": errors[OURS].mean(),
            "mae_each_model_alike": _alike(errors[OURS], folds),
            "mae_task_named": errors[NAMED].mean(),
            "coverage": covered.mean(),
            "coverage_below_0.9": covered[_scores(unseen) < FALLEN].mean(),
            "coverage_each_model_alike": _alike(covered, folds),
            "coverage_without_sampling_error": unseen.covered(z["unseen"], strict=True).mean(),
            "baseline_mae": {name: e.mean() for name, e in errors.items() if name in BASELINES},
        },
        "leave_one_configuration_out": {
            "rows": len(known.rows),
            "mae": _errors(known).mean(),
            "coverage": known.covered(z["known"]).mean(),
        },
    }


def _error_tables(
    z: Mapping[str, float],
    unseen: HeldOut,
    known: HeldOut,
    errors: Errors,
    folds: Folds,
    models: Mapping[str, KnownModel],
) -> dict[str, str]:
    covered = unseen.covered(z["unseen"])
    parts = {**_parts(unseen), **cache_parts(unseen, models)}
    kinds = {k: [i for i, r in enumerate(unseen.rows) if r.kind == k] for k in KINDS}
    left_out = {
        ", ".join(dict.fromkeys(unseen.rows[i].model for i in out)): out for out in folds.values()
    }
    return {
        "summary": _summary_table(errors, folds, unseen),
        "coverage": _coverage_table(
            ("unseen model", z["unseen"], unseen), ("known model", z["known"], known)
        ),
        "parts": _parts_table(parts, unseen, covered),
        "worst": _worst_table(unseen, models),
        "kinds": _by_part("task kind", kinds, errors, covered),
        "models": _by_part("left out", left_out, errors, covered),
    }


def _scores(held_out: HeldOut) -> Floats:
    return np.array([r.retention for r in held_out.rows])


def _errors(held_out: HeldOut) -> Floats:
    return np.abs(_scores(held_out) - held_out.predicted)


def _alike(values: Floats, folds: Folds) -> float:
    """Mean over folds of the mean within each."""
    return float(np.mean([values[list(out)].mean() for out in folds.values()]))


def _summary_table(errors: Errors, folds: Folds, held_out: HeldOut) -> str:
    weight = np.array([r.weight for r in held_out.rows])
    falling = _scores(held_out) < FALLEN
    lines = [
        [name, e.mean(), _alike(e, folds), (e * weight).sum() / weight.sum(), e[falling].mean()]
        for name, e in errors.items()
    ]
    header = ["MAE of retention", "rows alike", "models alike", "by trust", "rows below 0.9"]
    return markdown_table(header, lines)


def _coverage_table(*parts: tuple[str, float, HeldOut]) -> str:
    header = ["90 % interval", "z", "rows", "MAE", "coverage", "without sampling error"]
    lines = [
        [
            name,
            z,
            len(held_out.rows),
            _errors(held_out).mean(),
            held_out.covered(z).mean(),
            held_out.covered(z, strict=True).mean(),
        ]
        for name, z, held_out in parts
    ]
    return markdown_table(header, lines)


def _parts(held_out: HeldOut) -> dict[str, list[int]]:
    """Row numbers by who measured them and by what was quantized."""
    parts: dict[str, list[int]] = {}
    for i, row in enumerate(held_out.rows):
        cache = "cache" if row.quantizes_cache else "weights alone"
        parts.setdefault(f"{row.provenance}, {cache}", []).append(i)
    return dict(sorted(parts.items(), reverse=True))


def cache_parts(held_out: HeldOut, models: Mapping[str, KnownModel]) -> dict[str, list[int]]:
    """Row numbers of quantized caches by what makes a collapse likely: the model's keys, few bits,
    a long context. A row may be in several parts."""
    parts: dict[str, list[int]] = {}
    for i, row in enumerate(held_out.rows):
        bits = min(row.k_bits, row.v_bits)
        if bits >= 16:
            continue
        features = models[row.model].features
        keys = "biased" if features.qkv_bias else "normalized" if features.qk_norm else "plain"
        parts.setdefault(f"cache, {keys} keys", []).append(i)
        if bits <= FEW_BITS:
            parts.setdefault(f"cache, {FEW_BITS} bits on a side", []).append(i)
        if row.context > LONG:
            parts.setdefault(f"cache, beyond {LONG:,} tokens", []).append(i)
    return dict(sorted(parts.items()))


def _parts_table(parts: Mapping[str, Sequence[int]], unseen: HeldOut, covered: Floats) -> str:
    """Errors and coverage by part, of all rows and of those that lose a tenth or more."""
    header = ["rows", "number", "MAE", "task named", "sampling alone", "coverage"]
    header += ["below 0.9", "MAE", "coverage"]
    sampling = MEAN_OF_NORMAL * np.array([r.sd for r in unseen.rows])
    scores, errors = _scores(unseen), _errors(unseen)
    named = np.abs(scores - unseen.named)
    lines: list[list[object]] = []
    for name, out in parts.items():
        own = np.array(out)
        low = own[scores[own] < FALLEN]
        lines.append(
            [
                name,
                len(own),
                *(float(values[own].mean()) for values in (errors, named, sampling, covered)),
                len(low),
                *(float(values[low].mean()) if len(low) else 1.0 for values in (errors, covered)),
            ]
        )
    return markdown_table(header, lines)


def _worst_table(unseen: HeldOut, models: Mapping[str, KnownModel]) -> str:
    """The groups of rows with a quantized cache that carry most of their error."""
    members: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(unseen.rows):
        if row.quantizes_cache:
            family, bits = str(models[row.model].features.family), f"K{row.k_bits:g}V{row.v_bits:g}"
            key = (row.source.split("@")[0][:NAMED_BY], family, row.kind, bits)
            members.setdefault(key, []).append(i)
    errors, scores = _errors(unseen), _scores(unseen)
    total = sum(errors[own].sum() for own in members.values())
    worst = sorted(members.items(), key=lambda item: -errors[item[1]].sum())[:WORST]
    lines: list[list[object]] = [
        [*key, len(own), *(float(x) for x in _group(errors, scores, unseen, own, total))]
        for key, own in worst
    ]
    header = ["source", "family", "kind", "bits", "rows", "share of the error", "MAE"]
    return markdown_table([*header, "measured", "predicted"], lines)


def _group(
    errors: Floats, scores: Floats, unseen: HeldOut, own: Sequence[int], total: float
) -> tuple[float, float, float, float]:
    """A group's share of all error, its MAE, and what it keeps and was predicted to, on average."""
    off = errors[own]
    return off.sum() / total, off.mean(), scores[own].mean(), unseen.predicted[own].mean()


def _by_part(
    what: str,
    parts: Mapping[str, Sequence[int]],
    errors: Errors,
    covered: Floats,
) -> str:
    header = [what, "rows", *(f"MAE {name}" for name in errors), "coverage"]
    lines = [
        [name, len(out), *(e[list(out)].mean() for e in errors.values()), covered[list(out)].mean()]
        for name, out in parts.items()
        if out
    ]
    return markdown_table(header, lines)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float | np.floating) else value
