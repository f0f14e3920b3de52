"""Levels of tables, derived again; rows of codes of every width."""

from statistics import NormalDist

import numpy as np
import pytest

from kvpareto.planner.formats.code_tables import CODED, boundaries, levels, planes, row_bytes
from kvpareto.planner.formats.named import OURS, kv_format


def normal_groups(values: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal values in groups, on a scale from 0 to 1 of their range, and that range squared."""
    x = np.random.default_rng(0).standard_normal((2_000_000 // values, values))
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    weights = np.broadcast_to((high - low) ** 2, x.shape)
    return ((x - low) / (high - low)).ravel(), weights.ravel()


@pytest.mark.parametrize("width", [32, 64, 128, 256])
@pytest.mark.parametrize("table", ["lloyd2", "lloyd3"])
def test_lloyd_levels_are_means_of_what_they_stand_for(table: str, width: int) -> None:
    found = levels(table, width).astype(float)
    x, weights = normal_groups(width)
    x = x * (len(found) - 1)
    codes = np.searchsorted(boundaries(table, width), x)
    sums = np.bincount(codes, weights * x, len(found)), np.bincount(codes, weights, len(found))
    assert np.allclose(sums[0] / sums[1], found, atol=0.01)
    assert np.allclose(found + found[::-1], len(found) - 1, atol=1e-5)


def test_nf4_is_made_of_quantiles_of_the_normal() -> None:
    quantile = NormalDist().inv_cdf
    above = [quantile(p) for p in np.linspace(0.9677083, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in np.linspace(0.9677083, 0.5, 8)[:-1]]
    expected = np.sort(np.array([*above, 0.0, *below]))
    assert np.allclose(levels("nf4", 64) / 7.5 - 1.0, expected / expected.max(), atol=2e-6)


@pytest.mark.parametrize(
    ("shared", "width"), [(1, 32), (40, 32), (80, 64), (91, 128), (2**20, 256)]
)
def test_the_nearest_width_gives_the_levels(shared: int, width: int) -> None:
    assert np.array_equal(levels("lloyd2", shared), levels("lloyd2", width))


def test_integers_and_floats_have_no_table() -> None:
    for name in ("", "fp8", "nvfp4", "mxfp4"):
        with pytest.raises(KeyError):
            levels(name, 64)


def test_every_coded_format_is_ours_by_name() -> None:
    for name, bits in CODED.items():
        row = kv_format(name)
        assert row is not None
        assert (row.bits, OURS in row.engines) == (bits, True)


def test_parts_hold_every_bit_in_whole_words_of_usual_heads() -> None:
    for bits in (2, 3, 4, 5, 6, 8):
        assert sum(planes(bits)) == bits
        assert all(8 % part == 0 for part in planes(bits))
        for dim in (64, 80, 96, 112, 128, 256):
            assert row_bytes(dim, bits) == dim * bits / 8
    assert row_bytes(9, 3) == 3 + 2
