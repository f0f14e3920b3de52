"""Rows found after the form of the regression was chosen, predicted before they were used.

    python -m kvpareto.calibration.evidence.blind_rows          the table in docs/accuracy_blind.md

The fit has the published rows that were known before, and its intervals come from those alone. A
model is predicted as a plan predicts it: by its own rows, else by a sister's of its shape, else as
a stranger of its family or of none. docs/LOG.md has the figures of the days on which the rows were
found, when they were blind; what was changed since then with them in view is said there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...planner.accuracy.formula import Floats
from ...planner.accuracy.interval import inside
from ...planner.accuracy.predictor import Predictor
from ..fit.accuracy_rows import AccuracyRow
from ..fit.cross_validation import observed, predict_rows
from ..fit.interval_widths import BASES, FALLEN, as_planned
from ..fit.mixed_effects import KnownModel
from ..fit.published import FOLDER, clean, read_models
from ..fit.published_more import BLIND, CACHE, LATER, more_rows
from ..fit.regression import FLOOR
from .accuracy_tables import MEAN_OF_NORMAL
from .marked_tables import markdown_table, write_tables
from .refit_published import fit

BY_CHANNEL = "per-channel", "per-block"
"""Keys that have a scale for each channel, of all tokens or of a block."""
LONG = 16_000
"""Tokens of the rows whose context is shown apart."""


def foreseen(
    predictor: Predictor, rows: Sequence[AccuracyRow], models: Mapping[str, KnownModel]
) -> tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.str_]]:
    """Predictions by kind and as named tasks [N], whether the interval holds each score, and what
    each prediction rests on."""
    predicted, named = np.zeros(len(rows)), np.zeros(len(rows))
    held, basis = np.zeros(len(rows), dtype=bool), np.full(len(rows), max(BASES, key=len))
    for key in dict.fromkeys(row.model for row in rows):
        own = [i for i, row in enumerate(rows) if row.model == key]
        some = [rows[i] for i in own]
        effects, basis[own] = as_planned(predictor, models[key], models)
        low, middle, high = (
            predict_rows(
                predictor,
                effects,
                [_worth_more(r, effects.doubt * end) for r in some],
                models,
                -effects.z * end,
            )
            for end in (-1.0, 0.0, 1.0)
        )
        predicted[own] = middle
        named[own] = predict_rows(predictor, effects, some, models, 0.0, named=True)
        sd = np.hypot([row.sd for row in some], FLOOR)
        held[own] = inside(observed(some), middle, low, high, sd)
    return predicted, named, held, basis


def _worth_more(row: AccuracyRow, bits: float) -> AccuracyRow:
    """The same row of a cache whose formats are worth so many bits more."""
    k_bits, v_bits = (b if b >= 16 else b + bits for b in (row.k_bits, row.v_bits))
    return replace(row, k_bits=k_bits, v_bits=v_bits)


def blind_table(
    predictor: Predictor, rows: Sequence[AccuracyRow], models: Mapping[str, KnownModel]
) -> str:
    """A line for weights alone and for caches, and for their parts."""
    found = foreseen(predictor, rows, models)
    basis = found[3]
    cache = np.array([row.quantizes_cache for row in rows])
    bits = np.array([row.weight_bits for row in rows])
    turned = np.array([row.rotate_k for row in rows])
    parts = {
        "weights alone": ~cache,
        **{f"weights alone, {name}": ~cache & (basis == name) for name in BASES},
        "weights, 4 bits": ~cache & (bits == 4),
        "weights, 8 bits": ~cache & (bits == 8),
        "cache": cache,
        "cache, rotated keys with biases": cache & turned,
        "cache, the others": cache & ~turned,
    }
    return parts_table(found, rows, parts)


def parts_table(
    found: tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.str_]],
    rows: Sequence[AccuracyRow],
    parts: Mapping[str, NDArray[np.bool_]],
) -> str:
    """Errors and coverage of the parts that have rows."""
    predicted, named, held, _ = found
    scores = np.array([row.retention for row in rows])
    sampling = MEAN_OF_NORMAL * np.array([row.sd for row in rows])
    header = ["rows", "number", "MAE", "task named", "no loss", "sampling alone", "coverage"]
    header += ["below 0.9", "MAE", "coverage"]
    lines: list[list[object]] = []
    for name, part in parts.items():
        if not part.any():
            continue
        columns = (np.abs(predicted - scores), np.abs(named - scores), np.abs(1.0 - scores))
        means: list[object] = [float(c[part].mean()) for c in (*columns, sampling, held)]
        fallen = part & (scores < FALLEN)
        few: list[object] = ["–", "–"]
        if fallen.any():
            few = [float(columns[0][fallen].mean()), float(held[fallen].mean())]
        lines.append([name, int(part.sum()), *means, int(fallen.sum()), *few])
    return markdown_table(header, lines)


def other_rows(names: Sequence[str]) -> list[AccuracyRow]:
    """All published rows but those of these files."""
    left = more_rows(FOLDER, names)
    return [row for row in clean()[0] if row not in left]


def models_of_rows() -> dict[str, KnownModel]:
    """Those the fit learns from."""
    return {m.key: m for m in map(KnownModel.read, read_models(FOLDER / "models.csv"))}


def main(arguments: Sequence[str] | None = None) -> None:
    del arguments
    models = models_of_rows()
    files = (BLIND, CACHE, LATER)
    predictor = Predictor(fit(other_rows(files), models).payload)
    tables = {"blind": blind_table(predictor, more_rows(FOLDER, (BLIND,)), models)}
    print(*tables.values(), sep="\n\n")
    write_tables(tables)


if __name__ == "__main__":
    main()
