"""Bytes of one stored matrix, by hand: codes in whole words, scales, zero points, indices."""

from dataclasses import replace

import pytest

from kvpareto.planner.formats.weight_format import AWQ, INT8, MatrixFormat

PLAIN = MatrixFormat("plain", bits=4, tile_rows=1, tile_columns=64, scale_bytes=2)


def test_awq_is_its_three_tensors() -> None:
    codes, zeros, scales = 256 * 384 // 2, 3 * 256 // 8 * 4, 3 * 256 * 2
    assert AWQ.nbytes(256, 384) == codes + zeros + scales


def test_int8_has_one_scale_an_output_channel() -> None:
    assert INT8.nbytes(10, 33) == 330 + 20


@pytest.mark.parametrize(
    ("outputs", "inputs", "fits"), [(8, 128, True), (12, 128, False), (8, 192, False)]
)
def test_awq_takes_whole_groups_and_words(outputs: int, inputs: int, fits: bool) -> None:
    assert AWQ.fits(outputs, inputs) is fits
    assert PLAIN.fits(outputs + 1, inputs + 1)


@pytest.mark.parametrize(
    ("rows", "columns", "tiles"),
    [(1, 64, 10 * 3), (0, 64, 3), (1, 0, 10), (0, 0, 1), (4, 130, 3), (128, 128, 2)],
)
def test_tiles_are_rounded_up(rows: int, columns: int, tiles: int) -> None:
    assert replace(PLAIN, tile_rows=rows, tile_columns=columns).tiles(10, 130) == tiles


@pytest.mark.parametrize(
    ("changes", "extra"),
    [
        ({}, 0),
        ({"scale_bytes": 4}, 2 * 30),
        ({"nested": True}, 30 + 4 - 60),  # 30 codes of a byte, one fp32 for up to 256
        ({"zero_bits": 16}, 2 * 30),
        ({"zero_bits": 4}, 3 * 2 * 4),  # 10 x 4 bits in two words, for each of 3 groups
        ({"index_bytes": 4}, 4 * 130),
        ({"constant_bytes": 12}, 12),
        ({"word_bytes": 4}, 10 * (68 - 65)),  # 65 bytes of codes a row, in words of four
    ],
    ids=str,
)
def test_each_part_is_counted(changes: dict[str, int], extra: int) -> None:
    assert PLAIN.nbytes(10, 130) == 10 * 65 + 30 * 2
    assert replace(PLAIN, **changes).nbytes(10, 130) == 10 * 65 + 30 * 2 + extra  # type: ignore[arg-type]


def test_nested_scales_have_blocks_of_256() -> None:
    form = replace(PLAIN, nested=True, tile_columns=1)
    assert form.nbytes(1, 256) == 128 + 256 + 4
    assert form.nbytes(1, 257) == 129 + 257 + 8
