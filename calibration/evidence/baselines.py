"""What the regression must beat: simpler ways to predict a model that was never measured.

bit pair   mean retention of the other models' rows with the same weight, K and V bits
linear     ordinary least squares (scikit-learn) on bits, layout, task kind and model
           features, cut to [0, 1]
no loss    1, always: most published rows lose little
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from sklearn.linear_model import LinearRegression

from ...planner.accuracy.formula import GRANULARITIES, Floats
from ..fit.accuracy_rows import KINDS, AccuracyRow
from ..fit.cross_validation import groups
from ..fit.mixed_effects import KnownModel

Baseline = Callable[
    [Sequence[AccuracyRow], Sequence[AccuracyRow], Mapping[str, KnownModel]], Floats
]


def leave_one_model_out(
    rows: Sequence[AccuracyRow], models: Mapping[str, KnownModel], baseline: Baseline
) -> Floats:
    """A baseline's predictions in the very folds of the regression's hold-out."""
    predicted = np.zeros(len(rows))
    for out in groups(rows, models).values():
        left = set(out)
        kept = [r for i, r in enumerate(rows) if i not in left]
        predicted[out] = baseline(kept, [rows[i] for i in out], models)
    return predicted


def bit_pair(
    kept: Sequence[AccuracyRow], left: Sequence[AccuracyRow], models: Mapping[str, KnownModel]
) -> Floats:
    """Mean of rows with the same bits; the mean of all rows where no row has them."""
    by_bits: dict[tuple[float, ...], list[float]] = {}
    for row in kept:
        by_bits.setdefault((row.weight_bits, row.k_bits, row.v_bits), []).append(row.retention)
    everything = [row.retention for row in kept]
    return np.array(
        [np.mean(by_bits.get((r.weight_bits, r.k_bits, r.v_bits), everything)) for r in left]
    )


def linear(
    kept: Sequence[AccuracyRow], left: Sequence[AccuracyRow], models: Mapping[str, KnownModel]
) -> Floats:
    """Ordinary least squares on the features of configuration, task and model."""
    fitted = LinearRegression().fit(
        [_features(r, models[r.model]) for r in kept], [r.retention for r in kept]
    )
    predicted: Floats = np.clip(fitted.predict([_features(r, models[r.model]) for r in left]), 0, 1)
    return predicted


def no_loss(
    kept: Sequence[AccuracyRow], left: Sequence[AccuracyRow], models: Mapping[str, KnownModel]
) -> Floats:
    """Nothing is ever lost."""
    return np.ones(len(left))


BASELINES: dict[str, Baseline] = {"bit pair": bit_pair, "linear": linear, "no loss": no_loss}


def _features(row: AccuracyRow, model: KnownModel) -> list[float]:
    features = model.features
    return [
        row.weight_bits,
        row.k_bits,
        row.v_bits,
        *(float(row.granularity == g) for g in GRANULARITIES[1:]),
        float(row.group_size or features.head_dim),
        float(row.rotate_k),
        float(row.rotate_v),
        float(row.residual),
        float(np.log2(row.context)),
        *(float(row.kind == kind) for kind in KINDS[1:]),
        float(features.qkv_bias),
        float(features.qk_norm),
        float(np.log2(features.parameters_b)),
    ]
