"""A space's axes: the order of its points, and how simple each point is taken to be."""

import numpy as np
import pytest

from kvpareto.planner.formats.configuration import Configuration, Granularity, Protection
from kvpareto.planner.formats.space import KVLayout, Space

LAYOUTS = (
    KVLayout(),
    KVLayout(Granularity.PER_CHANNEL, block_tokens=32),
    KVLayout(Granularity.PER_BLOCK, block_tokens=64),
    KVLayout(Granularity.PER_TENSOR),
    KVLayout(group_size=64, smoothing=True, rotation=True, residual=128),
)


def space(*formats: tuple[int, int, int, int], weights: tuple[int, ...] = (16,)) -> Space:
    """Formats are (layout, K bits, V bits, protection)."""
    rows = np.array(formats)
    return Space(
        weights=weights,
        chunks=(None, 256, 512, 4096, 8192),
        layouts=LAYOUTS,
        protections=((), (0, 5)),
        layout=rows[:, 0],
        k_bits=rows[:, 1],
        v_bits=rows[:, 2],
        protection=rows[:, 3],
    )


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ((0, 16, 16, 0), 0),
        ((0, 8, 8, 0), 2 * 2),  # a halving of keys, a halving of values
        ((0, 4, 4, 0), 4 * 2),
        ((0, 2, 2, 0), 6 * 2),
        ((0, 8, 16, 0), 2 + 8),  # K and V differ
        ((0, 4, 4, 1), 8 + 4),  # protected layers
        ((1, 4, 4, 0), 8 + 2),  # scales per channel
        ((2, 4, 4, 0), 8 + 4),  # tiles
        ((3, 4, 4, 0), 8 + 4),  # scales per tensor
        ((4, 4, 4, 0), 8 + 4 * 2),  # a group, smoothing, rotation, a window
    ],
)
def test_how_far_a_format_is_from_what_people_run(
    format_: tuple[int, int, int, int], expected: int
) -> None:
    both = space((0, 16, 16, 0), format_, weights=(16, 8, 4))
    assert both.complexity[0, 1].tolist() == [expected, *[expected + 1] * 4]  # a chunk is one more
    assert both.complexity[:, 1, 0].tolist() == [expected, expected + 2, expected + 4]
    assert both.complexity[:, 0, 0].tolist() == [0, 2, 4]


def test_two_bits_of_either_side_are_marked() -> None:
    marked = space((0, 4, 4, 0), (0, 2, 8, 0), (0, 8, 2, 0), (0, 16, 16, 0)).two_bits
    assert marked.shape == (1, 4, 5)
    assert marked[0, :, 0].tolist() == [False, True, True, False]


def test_usual_chunks_include_their_ends() -> None:
    usual = space((0, 16, 16, 0)).usual_chunk
    assert usual[0, 0].tolist() == [True, False, True, True, False]


def test_points_are_numbered_weights_first_and_chunks_last() -> None:
    one = space((0, 16, 16, 0), (4, 4, 2, 1), weights=(16, 4))
    assert one.shape == (2, 2, 5)
    assert len(one) == 20
    assert one.configuration(0) == Configuration()
    assert str(one.configuration(19)) == (
        "w4a16-k4v2-g64+smooth+rot+res128+protect{0,5}:k8v8+pc8192"
    )
    assert one.at(8, 1, None).protection == Protection((0, 5), 8, 8)
    assert one.of_layout("residual").tolist() == [0, 128]
    assert one.of_layout("block_tokens").tolist() == [0, 0]
    assert one.weight_name(1) == ""
