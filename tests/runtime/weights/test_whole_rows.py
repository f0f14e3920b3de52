"""Rows in whole numbers: what they are worth, where their bytes lie, when they are found again."""

import pytest
import torch

from kvpareto.planner.latency.parts_cut import whole_bytes
from kvpareto.runtime.weights.whole_rows import whole_rows
from kvpareto.runtime.weights.workspace import Workspace

ROUNDING = {torch.bfloat16: 2.0**-15, torch.float16: 2.0**-14}  # of the largest of 128


def number(whole: torch.Tensor, inputs: int, rows: int, row: int, at: int) -> tuple[int, float]:
    """Input `at` of a row, put together from its bytes as whole.cuh draws them; what one counts."""
    unit, inner = divmod(at, 128)
    plane, i, pair, odd = inner // 32, inner % 32 // 4, inner % 4 // 2, inner % 2
    piece = ((unit * 2 + odd) * 2 * rows + 2 * row) * 4 + i // 2
    byte = piece * 16 + i % 2 * 8 + pair * 4 + plane
    codes, measures = whole[: 2 * inputs * rows].view(torch.int8), whole[2 * inputs * rows :]
    count = measures.view(torch.float32)[2 * (unit * rows + row)]
    return 256 * int(codes[byte]) + int(codes[byte + 64]), float(count)


@pytest.mark.parametrize("rows", [8, 16])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_bytes_put_together_are_x(dtype: torch.dtype, rows: int) -> None:
    x = torch.randn(5, 384, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[2, 130] = 300.0
    x[3, 128:256] *= 1e-4
    whole = whole_rows(x, rows)
    assert whole.numel() == whole_bytes(384, rows)
    for row in range(5):
        largest = x[row].float().view(3, 128).abs().amax(-1)
        for at in range(row, 384, 7):
            value, count = number(whole, 384, rows, row, at)
            gap = abs(value * count - float(x[row, at]))
            assert gap <= ROUNDING[dtype] * float(largest[at // 128])


def test_numbers_of_a_unit_fill_sixteen_bits_and_are_added_up() -> None:
    x = torch.zeros(1, 256, dtype=torch.bfloat16)
    x[0, 7], x[0, 100] = 1.984375, -1.0  # the largest below 2 that bfloat16 has next to
    whole = whole_rows(x, 8)
    assert number(whole, 256, 8, 0, 7) == (32512, 2.0**-14)
    assert number(whole, 256, 8, 0, 100) == (-16384, 2.0**-14)
    sums = whole[2 * 256 * 8 :].view(torch.int32)
    assert sums[1] == 32512 - 16384
    assert sums[1 + 2 * 8] == 0  # the second unit's


def test_what_rounds_up_past_the_upper_byte_is_held_at_the_most() -> None:
    x = torch.full((1, 128), 1.9921875, dtype=torch.bfloat16)  # 32640 of 2^-14
    assert number(whole_rows(x, 8), 128, 8, 0, 0) == (32639, 2.0**-14)


class TestKept:
    def test_what_is_kept_of_a_tensor_is_found_once(self) -> None:
        workspace, y = Workspace(4096, "cpu"), torch.zeros(5, 256, dtype=torch.bfloat16)
        room = workspace.keep_whole(y, 8)
        assert room is not None
        assert workspace.whole_of(y.view(5, 256), 8) is room
        assert workspace.whole_of(y, 8) is None

    def test_another_tensor_or_padding_does_not_find_it(self) -> None:
        workspace, y = Workspace(8192, "cpu"), torch.zeros(5, 256, dtype=torch.bfloat16)
        for x, rows in ((y.clone(), 8), (y, 16), (y[:4], 8), (y.view(torch.float16), 8)):
            assert workspace.keep_whole(y, 8) is not None
            assert workspace.whole_of(x, rows) is None
            assert workspace.whole_of(y, 8) is None  # asked once

    def test_who_takes_the_scratch_takes_it_away(self) -> None:
        workspace, y = Workspace(65536, "cpu"), torch.zeros(5, 256, dtype=torch.bfloat16)
        for take in (
            workspace.sums,
            workspace.partial,
            lambda: workspace.weight(64, 64, torch.bfloat16),
            lambda: workspace.eight_bits(64, 64),
        ):
            assert workspace.keep_whole(y, 8) is not None
            take()
            assert workspace.whole_of(y, 8) is None

    def test_nothing_is_kept_where_there_is_no_room(self) -> None:
        y = torch.zeros(5, 256, dtype=torch.bfloat16)
        small, large = Workspace(2111, "cpu"), Workspace(2112, "cpu")  # 8 rows of 512 and 16 bytes
        assert small.keep_whole(y, 8) is None
        assert small.whole_of(y, 8) is None
        assert large.keep_whole(y, 8) is not None
        assert large.keep_whole(y, 8, 1) is None
        assert large.keep_whole(y[:, :128], 8, 17).data_ptr() == large.scratch.data_ptr() + 32  # type: ignore[union-attr]
