"""A fit -> the JSON that the planner evaluates: coefficients, spreads, range, data hash.

Numbers are rounded to six significant digits, so that what is written is what is evaluated,
and a refit elsewhere gives the same text up to the last digit.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np

from ...planner.accuracy.calibration_files.check import SCHEMA
from ...planner.accuracy.formula import COEFFICIENTS
from ...planner.accuracy.interval import LEVEL
from ...planner.accuracy.model_sensitivity import COMPONENTS
from .accuracy_rows import KINDS, AccuracyRow
from .mixed_effects import FIRST_PRIORS, SPREADS, TASK_SD, KnownModel
from .regression import MISFIT, Fit

PRECEDENCE = ("calibrated", "published")
"""A model's predictions rest on the best of its rows."""


def to_payload(
    fit: Fit,
    rows: Sequence[AccuracyRow],
    models: Mapping[str, KnownModel],
    folder: Path,
    z: Mapping[str, float],
) -> dict[str, Any]:
    """Everything the planner needs, as JSON values; `z` scales the intervals of known
    and unseen models."""
    layout, sd = fit.layout, np.sqrt(np.diag(fit.covariance))
    shared = [n for n in layout.names if n.startswith(("scale:", "covariate:", "family:"))]
    picked = [layout.index[n] for n in shared]
    payload = {
        "schema": SCHEMA,
        "level": LEVEL,
        "z": z,
        "data": {
            "rows": len(rows),
            "sha256": data_hash(rows, layout.models),
            "provenance": dict(sorted(Counter(r.provenance for r in rows).items())),
        },
        "coefficients": {
            n: [fit.theta[layout.index[n]], sd[layout.index[n]]] for n in COEFFICIENTS
        },
        "float_bias": float(fit.layout.row("float_bias") @ fit.theta),
        "kinds": {k: _kind(fit, k) for k in KINDS},
        "kind_shapes": {k: _shape(fit, k, rows) for k in KINDS},
        "tasks": {
            name.removeprefix("task:"): fit.theta[i]
            for name, i in layout.index.items()
            if name.startswith("task:")
        },
        "population": {
            "names": shared,
            "mean": fit.theta[picked],
            "covariance": fit.covariance[np.ix_(picked, picked)],
        },
        "spread": {
            **SPREADS,
            "misfit": MISFIT,
            "source": 0.0,  # of hold-outs (interval_widths.py), once it is known
        },
        "families": read_families(folder),
        "models": {m.key: _model(fit, m, rows) for m in layout.models},
        "range": _range(rows),
    }
    rounded: dict[str, Any] = _plain(payload)
    return rounded


def data_hash(rows: Sequence[AccuracyRow], models: Sequence[KnownModel]) -> str:
    """SHA-256 of the values of a fit's rows and models, in their order."""
    columns = [field.name for field in fields(AccuracyRow)]
    values: list[tuple[object, ...]] = [tuple(getattr(r, c) for c in columns) for r in rows]
    values += [astuple(model) for model in models]
    return hashlib.sha256("\n".join(map(repr, values)).encode()).hexdigest()


def read_families(folder: Path) -> dict[str, dict[str, Any]]:
    """families.csv: which model types (and vocabulary or heads, where they decide) make a family;
    the first that fits holds."""
    with (folder / "families.csv").open(newline="", encoding="utf-8") as file:
        return {
            line["family"]: {
                "model_types": line["model_types"].split("|"),
                "vocab": int(line["vocab"]) if line["vocab"] else None,
                "ungrouped": line["ungrouped"] == "1",
            }
            for line in csv.DictReader(file)
        }


def _kind(fit: Fit, kind: str) -> list[float]:
    row = fit.layout.kind_row(kind)
    variance = max(float(row @ fit.covariance @ row), 0.0)  # rounding may leave -0
    return [float(row @ fit.theta), float(np.hypot(variance**0.5, TASK_SD))]


def _shape(fit: Fit, kind: str, rows: Sequence[AccuracyRow]) -> dict[str, float]:
    """How a kind falls: log steepness and log noise of weights against the reference's, the floor
    usual in its rows of a cache, the share of the first token, and its misfits
    (interval_widths.py), once they are known."""
    own = [(r.scored.floor, r.weight) for r in rows if r.kind == kind and r.quantizes_cache]
    total = sum(weight for _, weight in own)
    return {
        "steepness": float(fit.layout.row(f"steepness:{kind}") @ fit.theta),
        "weight": float(fit.layout.row(f"kind_weight:{kind}") @ fit.theta),
        "floor": sum(floor * weight for floor, weight in own) / total if total else 0.0,
        "first": _first_share(fit, kind),
        "misfit": 0.0,
        "weight_misfit": 0.0,
    }


def _first_share(fit: Fit, kind: str) -> float:
    """Share of a kind's score that the first token decides; 0 where no task has an answer."""
    if kind not in FIRST_PRIORS:
        return 0.0
    return float(1.0 / (1.0 + np.exp(-fit.layout.row(f"first:{kind}") @ fit.theta)))


def _model(fit: Fit, model: KnownModel, rows: Sequence[AccuracyRow]) -> dict[str, Any]:
    combinations = [fit.layout.scale_row(model, c) for c in COMPONENTS]
    own = [r for r in rows if r.model == model.key]
    return {
        "family": model.features.family,
        "names": list(model.names),
        "shape": list(model.shape),
        "parameters_b": model.features.parameters_b,
        "read": model.features.ranges.name if model.features.ranges is not None else "",
        "outlier_layers": list(model.features.outliers.layers),
        "outlier_share": model.features.outliers.share,
        "rows": len(own),
        "cache_rows": sum(r.quantizes_cache for r in own),
        "provenance": next(p for p in PRECEDENCE if any(r.provenance == p for r in own)),
        "mean": [c @ fit.theta for c in combinations],
        "sd": [np.sqrt(c @ fit.covariance @ c + MISFIT**2) for c in combinations],
    }


def _range(rows: Sequence[AccuracyRow]) -> dict[str, Any]:
    cache = [r for r in rows if r.quantizes_cache]
    integer = [r for r in cache if r.k_bits in (2, 3, 4, 8)]
    return {
        "context": [min(r.context for r in rows), max(r.context for r in rows)],
        "k_bits": sorted({r.k_bits for r in cache}),
        "v_bits": sorted({r.v_bits for r in cache}),
        "rows": {
            "smoothing": sum(r.smoothing for r in cache),
            "rotation": sum(r.rotate_k for r in cache),
            "weights": sum(r.weight_bits < 16 for r in rows),
            **dict(sorted(Counter(r.granularity for r in integer).items())),
        },
    }


def _plain(value: Any) -> Any:
    """numpy to Python, floats to six significant digits."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
