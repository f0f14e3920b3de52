"""More bits, finer groups, longer windows, protected layers: none may ever predict worse.

Checked on the full grid of formats, for prediction and both ends, on models with rows, without
rows, with a key bias, and of a kind nobody measured.
"""

from itertools import product

import numpy as np
import pytest

from kvpareto.planner.accuracy.format_arrays import format_arrays
from kvpareto.planner.accuracy.predict import predict_grid
from kvpareto.planner.accuracy.prediction import AccuracyGrid
from kvpareto.planner.formats.configuration import Granularity
from tests.support.accuracy_specs import (
    LATENT,
    LLAMA31_8B,
    QWEN25_7B,
    UNSEEN,
    UNSEEN_BIASED,
    spec_of,
)

WIDE_HEADS = "Qwen/Qwen3.5-27B"  # 256 channels
MODELS = (QWEN25_7B, LLAMA31_8B, UNSEEN, UNSEEN_BIASED, LATENT)
WEIGHTS = (4, 8, 16)
BITS = (2, 4, 8, 16)
GROUPS = (0, 128, 64, 32)  # from coarse to fine; 0 is the head of 128 channels
BLOCKS = (256, 128, 64, 32, 16)
RESIDUALS = (0, 32, 128, 4096)
PROTECTIONS = ((), (0,), (0, 1), (0, 1, 2, 13, 27))
AXES = ("K bits", "V bits", "group", "block", "residual", "protection")
GRANULARITY_BLOCKS = {
    Granularity.PER_TOKEN: (0,),
    Granularity.PER_CHANNEL: BLOCKS,
    Granularity.PER_BLOCK: BLOCKS,
    Granularity.PER_TENSOR: (0,),
}
CHOICES = [
    pytest.param(model, granularity, smooth, turn, id=f"{model}-{granularity}-s{smooth:d}r{turn:d}")
    for model, granularity, smooth, turn in product(
        MODELS, Granularity, (False, True), (False, True)
    )
]


def grid_of(
    model: str, granularity: Granularity, smoothing: bool, rotation: bool, context: int = 16384
) -> tuple[AccuracyGrid, tuple[int, ...]]:
    """Predictions over WEIGHTS x AXES, from coarse to fine along each."""
    axes = (BITS, BITS, GROUPS, GRANULARITY_BLOCKS[granularity], RESIDUALS, PROTECTIONS)
    points = list(product(*(range(len(axis)) for axis in axes)))
    columns = [[axis[p[i]] for p in points] for i, axis in enumerate(axes[:5])]
    spec = spec_of(model)
    formats = format_arrays(
        spec,
        k_bits=columns[0],
        v_bits=columns[1],
        granularity=[granularity] * len(points),
        group_size=columns[2],
        block_tokens=columns[3],
        smoothing=[smoothing] * len(points),
        rotation=[rotation] * len(points),
        residual=columns[4],
    )
    grid = predict_grid(
        spec,
        WEIGHTS,
        formats,
        context,
        protections=PROTECTIONS,
        protection=[p[5] for p in points],
        protected_bits=16,
    )
    return grid, tuple(len(axis) for axis in axes)


@pytest.mark.parametrize(("model", "granularity", "smoothing", "rotation"), CHOICES)
def test_finer_is_never_worse(
    model: str, granularity: Granularity, smoothing: bool, rotation: bool
) -> None:
    grid, shape = grid_of(model, granularity, smoothing, rotation)
    for end in ("low", "retention", "high"):
        values = getattr(grid, end).reshape(len(WEIGHTS), *shape)
        for axis, name in enumerate(("weight bits", *AXES)):
            worst = np.diff(values, axis=axis).min(initial=0.0)
            assert worst >= -1e-12, f"{end} falls by {-worst:.2g} along {name}"
    assert np.all(grid.low <= grid.retention)
    assert np.all(grid.retention <= grid.high)
    assert grid.low.min() >= 0.0
    assert grid.high.max() <= 1.0


@pytest.mark.parametrize("model", MODELS)
def test_more_bits_really_help(model: str) -> None:
    """The comparison above would also hold for a constant."""
    grid, shape = grid_of(model, Granularity.PER_TOKEN, False, False)
    values = grid.retention.reshape(len(WEIGHTS), *shape)
    assert np.all(np.diff(values[:, :, -1, 0, 0, 0, 0], axis=1) > 0)
    assert np.all(np.diff(values[:, -1, :, 0, 0, 0, 0], axis=1) > 0)


@pytest.mark.parametrize("model", [*MODELS, WIDE_HEADS])
@pytest.mark.parametrize("turn", [False, True])
def test_a_coarser_granularity_is_never_better(model: str, turn: bool) -> None:
    spec = spec_of(model)
    bits = list(product(BITS, BITS))

    def ends(granularity: Granularity, block: int) -> np.ndarray:
        formats = format_arrays(
            spec,
            k_bits=[k for k, _ in bits],
            v_bits=[v for _, v in bits],
            granularity=[granularity] * len(bits),
            group_size=[0] * len(bits),
            block_tokens=[block] * len(bits),
            smoothing=[False] * len(bits),
            rotation=[turn] * len(bits),
            residual=[0] * len(bits),
        )
        grid = predict_grid(spec, WEIGHTS, formats, 16384)
        return np.stack([grid.low, grid.retention, grid.high])

    from_fine = [
        ends(Granularity.PER_TOKEN, 0),
        *(ends(Granularity.PER_BLOCK, block) for block in reversed(BLOCKS)),
        ends(Granularity.PER_TENSOR, 0),
    ]
    assert np.all(np.diff(np.stack(from_fine), axis=0) <= 1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_a_longer_context_is_never_better(model: str) -> None:
    """With no window: a window covers less of a longer context, which is another matter."""
    found = []
    for context in (1024, 4096, 8192, 131072, 2**20):
        grid, shape = grid_of(model, Granularity.PER_TOKEN, False, False, context)
        values = np.stack([grid.low, grid.retention, grid.high])
        found.append(values.reshape(3, len(WEIGHTS), *shape)[:, :, :, :, :, :, 0])
    assert np.all(np.diff(np.stack(found), axis=0) <= 1e-12)
