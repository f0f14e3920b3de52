"""How small could the error of a left-out model be? the docs' tables of floors.

    python -m kvpareto.calibration.evidence.error_floor

The first table needs no fit. It sets the regression's error beside what no prediction can know: the
sampling error of the scores themselves, how far rows of one model, task, context and bits differ
among each other, and what is left where the model's own rows are known. The second leaves out more
than a model with its relatives, or less: whole families, sources, and models whose relatives stay.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...planner.accuracy.formula import Floats
from ...planner.accuracy.retention import OutlierLayers
from ..fit.accuracy_rows import AccuracyRow, read_rows
from ..fit.cross_validation import groups, predict_rows, read_predicted, without
from ..fit.mixed_effects import KnownModel
from ..fit.published import FOLDER, read_models
from ..fit.regression import fit_rows
from .accuracy_tables import MEAN_OF_NORMAL, NAMED_BY
from .marked_tables import markdown_table, write_tables

Key = Callable[[AccuracyRow], object]
Models = Mapping[str, KnownModel]


def bits_of(row: AccuracyRow) -> tuple[object, ...]:
    """Model and bits: what the most modest knowledge of a model is by."""
    return row.model, row.weight_bits, row.k_bits, row.v_bits


def replicate_of(row: AccuracyRow) -> tuple[object, ...]:
    """What rows have in common that a prediction from a config cannot tell apart."""
    own = ("task", "context", "granularity", "group_size", "residual", "rotate_k", "rotate_v")
    return (*bits_of(row), row.kind, *(getattr(row, name) for name in own))


def parted(rows: Sequence[AccuracyRow], key: Key) -> list[list[int]]:
    """Row numbers by `key`."""
    members: dict[object, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(key(row), []).append(i)
    return list(members.values())


def by_median(scores: Floats, parts: Sequence[Sequence[int]], *, out: bool) -> Floats:
    """|score - median of its part|, [N]; of the part's other rows if `out` (nan: it has none)."""
    off = np.full(len(scores), np.nan)
    for part in parts:
        for i in part:
            others = [j for j in part if j != i] if out else list(part)
            if others:
                off[i] = abs(scores[i] - min(float(np.median(scores[others])), 1.0))
    return off


def replicates(scores: Floats, parts: Sequence[Sequence[int]]) -> Floats:
    """Of each row with another like it, what the mean of infinitely many would leave: half of the
    mean difference of pairs times the root of two, as of normal scores; nan without another."""
    off = np.full(len(scores), np.nan)
    for part in parts:
        if len(part) > 1:
            for i in part:
                apart = [abs(scores[i] - scores[j]) for j in part if j != i]
                off[i] = float(np.mean(apart)) / 2**0.5
    return off


def floor_lines(rows: Sequence[AccuracyRow], predicted: Floats) -> list[list[object]]:
    """A line for caches, for weights alone, and for weights of 4 and of 8 bits."""
    scores = np.array([row.retention for row in rows])
    known = {
        "ours": np.abs(predicted - scores),
        "no loss": np.abs(1.0 - scores),
        "sampling": MEAN_OF_NORMAL * np.array([row.sd for row in rows]),
        "alike": replicates(scores, parted(rows, replicate_of)),
        "others": by_median(scores, parted(rows, bits_of), out=True),
        "own": by_median(scores, parted(rows, bits_of), out=False),
    }
    chosen = {
        "cache": [row.quantizes_cache for row in rows],
        "weights alone": [not row.quantizes_cache for row in rows],
        "weights, 4 bits": [not row.quantizes_cache and row.weight_bits == 4 for row in rows],
        "weights, 8 bits": [not row.quantizes_cache and row.weight_bits == 8 for row in rows],
    }
    lines: list[list[object]] = []
    for name, one in chosen.items():
        own = np.array(one)
        means = [float(np.nanmean(off[own])) for off in known.values()]
        lines.append([name, int(own.sum()), *means, int(np.isfinite(known["alike"][own]).sum())])
    return lines


def floor_table(rows: Sequence[AccuracyRow], predicted: Floats) -> str:
    header = ["MAE", "rows", "this regression", "no loss", "sampling alone", "rows alike"]
    header += ["median of the model's other rows", "of all its rows", "with rows alike"]
    return markdown_table(header, floor_lines(rows, predicted))


def left_out(
    rows: Sequence[AccuracyRow], models: Models, parts: Sequence[Sequence[int]]
) -> tuple[Floats, Floats]:
    """Rows predicted by kind and as named tasks from fits without their part, as of models that
    nobody knows, [N] each."""
    full = fit_rows(rows, models)
    start = dict(zip(full.layout.names, full.theta.tolist(), strict=True))
    found = np.full((2, len(rows)), np.nan)
    for part in parts:
        predictor = without(part, rows, models, FOLDER, start)
        for key, own in _by_model(part, rows):
            features = replace(models[key].features, outliers=OutlierLayers())
            effects = predictor.models.unseen(features)
            subset = [rows[i] for i in own]
            for line, named in zip(found, (False, True), strict=True):
                line[own] = predict_rows(predictor, effects, subset, models, 0.0, named=named)
    return found[0], found[1]


def _by_model(part: Sequence[int], rows: Sequence[AccuracyRow]) -> Iterator[tuple[str, list[int]]]:
    for key in dict.fromkeys(rows[i].model for i in part):
        yield key, [i for i in part if rows[i].model == key]


def ways_of_leaving_out(
    rows: Sequence[AccuracyRow], models: Models
) -> dict[str, Sequence[Sequence[int]]]:
    """What is left out together, by name."""
    return {
        "a model and its relatives": list(groups(rows, models).values()),
        "a model alone": parted(rows, lambda row: row.model),
        "a family": parted(rows, lambda row: models[row.model].features.family),
        "a source": parted(rows, lambda row: row.source.split("@")[0][:NAMED_BY]),
    }


def left_out_table(rows: Sequence[AccuracyRow], models: Models) -> str:
    """Errors of caches and of weights for each way of leaving out."""
    scores = np.array([r.retention for r in rows])
    cache = np.array([r.quantizes_cache for r in rows])
    lines: list[list[object]] = []
    for name, parts in ways_of_leaving_out(rows, models).items():
        by_kind, named = (np.abs(found - scores) for found in left_out(rows, models, parts))
        errors = [by_kind[cache], named[cache], by_kind[~cache], named[~cache]]
        lines.append([name, len(parts), *(float(off.mean()) for off in errors)])
    header = ["left out", "fits", "cache", "task named", "weights alone", "task named"]
    return markdown_table(header, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    del arguments
    rows = read_rows(FOLDER / "accuracy.csv")
    models = {m.key: m for m in map(KnownModel.read, read_models(FOLDER / "models.csv"))}
    predicted = read_predicted(FOLDER / "held_out.csv", rows)
    tables = {"floors": floor_table(rows, predicted), "ways": left_out_table(rows, models)}
    print("\n\n".join(tables.values()))
    write_tables(tables)


if __name__ == "__main__":
    main()
