"""A larger key bias is not always worse: what the step of a group does to its other channels."""

import numpy as np

from kvpareto.planner.accuracy.key_noise.key_simulation import _error, _rope

TOKENS, ORDINARY = 4000, 31


def keys_of(bias: float) -> np.ndarray:
    """Normal keys [1, tokens, 32] with one more channel that holds the bias."""
    ordinary = np.random.default_rng(0).standard_normal((1, TOKENS, ORDINARY))
    return np.concatenate([ordinary, np.full((1, TOKENS, 1), bias)], axis=-1).astype(np.float32)


def at_zero_point(bias: float) -> float:
    """Share of the ordinary channels' values that are stored as the lowest of their group."""
    keys = keys_of(bias)
    stored = keys + _error(keys, 4, "head")
    low = keys.min(axis=-1, keepdims=True)
    return float((np.abs(stored - low) < 1e-2)[..., :ORDINARY].mean())


def lost(bias: float) -> float:
    """Variance over the tokens of the ordinary channels' error."""
    error = _error(keys_of(bias), 4, "head")[..., :ORDINARY]
    return float(error.var(axis=1).mean())


def test_beyond_a_step_of_twice_the_range_channels_are_lost_and_that_is_all() -> None:
    """By hand, of n channels' values x with the lowest m: at a step over 2 max(x - m) all are
    stored as m, whatever the bias. The error m - x then has variance 1 + var(m) - 2 cov(m, x), and
    cov(m, x) is 1 / n, since m less the mean is independent of the mean. At a step of s = 5, what
    is above m + s / 2, about 0.5, is stored as m + s, off by up to s / 2: worse."""
    lowest = float(keys_of(0.0)[..., :ORDINARY].min(axis=-1).var())
    assert at_zero_point(200.0) > 0.999
    for bias in (200.0, 1000.0):
        assert abs(lost(bias) - (1.0 + lowest - 2.0 / ORDINARY)) < 0.02
    assert 0.5 < at_zero_point(75.0) < 0.8
    assert lost(75.0) > 2 * lost(200.0)
    assert lost(25.0) < lost(50.0) < lost(75.0)


def test_a_bias_that_rope_turns_moves_the_zero_point() -> None:
    """What makes the largest biases worse again: the pair's other channel becomes the lowest value
    of the group, and it goes with the token's place. All lost channels then share one error."""
    places = np.arange(TOKENS) * 4096 // TOKENS
    shared = {}
    for bias in (200.0, 1000.0):
        keys = _rope(keys_of(bias), places, 1e6, ORDINARY + 1)
        error = _error(keys, 4, "head")[..., :ORDINARY]
        shared[bias] = float(error.mean(axis=-1).var())
    assert shared[1000.0] > 10 * shared[200.0]
