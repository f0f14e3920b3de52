"""Codes, pairs and packed bytes against numbers worked out by hand."""

import pytest
import torch

from kvpareto.planner.formats.code_tables import row_bytes
from kvpareto.planner.formats.configuration import Configuration, Granularity
from kvpareto.planner.formats.kv_format import KVFormat, SideFormat
from kvpareto.runtime.cache.packing import pack, unpack
from kvpareto.runtime.cache.quantize import dequantize, quantize
from tests.support.runtime_builders import FORMATS


def side(
    bits: int,
    granularity: str = "per-token",
    group: int | None = None,
    block: int = 1,
    table: str = "",
    clip: int = 100,
) -> SideFormat:
    kind = Granularity(granularity)
    return SideFormat("k", bits, kind, group, block, 0, 0, False, table, clip)


def as_heads(rows: list[list[float]]) -> torch.Tensor:
    """Rows of channels, one a token, as [1, 1, T, D]."""
    return torch.tensor(rows)[None, None]


def test_two_bits_per_token_by_hand() -> None:
    # min -3, max 6: scale 9/3 = 3, so -3 0 3 6 are codes 0 1 2 3 and 4.6 is nearest to 2 (3.0)
    codes, pairs = quantize(as_heads([[-3.0, 0.0, 6.0, 4.4]]), side(2))
    assert codes.flatten().tolist() == [0, 1, 3, 2]
    assert pairs.flatten().tolist() == [3.0, -3.0]
    assert dequantize(codes, pairs, side(2)).flatten().tolist() == [-3.0, 0.0, 6.0, 3.0]


def test_last_group_is_narrower() -> None:
    # D = 80 in groups of 32: 32 + 32 + 16 channels; the last group holds only 100..115
    x = torch.arange(80.0)
    x[64:] = torch.arange(100.0, 116.0)
    codes, pairs = quantize(x.view(1, 1, 1, 80), side(4, group=32))
    assert pairs.shape == (1, 1, 1, 3, 2)
    assert pairs[0, 0, 0, 2].tolist() == [1.0, 100.0]
    assert codes[0, 0, 0, 64:].tolist() == list(range(16))


def test_per_channel_takes_extremes_over_tokens() -> None:
    x = as_heads([[0.0, 10.0], [15.0, 10.0], [3.0, 25.0], [7.0, 40.0]])
    form = side(4, "per-channel", block=2)
    codes, pairs = quantize(x, form)
    # block 0: channel 0 spans 0..15, channel 1 is constant 10; block 1: 3..7 and 25..40
    assert pairs[0, 0, 0].tolist() == [[1.0, 0.0], [0.0, 10.0]]
    assert pairs[0, 0, 1, 1].tolist() == [1.0, 25.0]
    assert codes[0, 0].tolist() == [[0, 0], [15, 0], [0, 0], [15, 15]]
    assert torch.equal(dequantize(codes, pairs, form)[..., :2, :], x[..., :2, :])


def test_per_block_shares_tiles_of_tokens_and_channels() -> None:
    form = side(8, "per-block", group=32, block=2)
    x = torch.zeros(1, 1, 2, 64)
    x[0, 0, 1, 40] = 255.0
    codes, pairs = quantize(x, form)
    assert pairs[0, 0, 0].tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert codes[0, 0, 1, 40] == 255


def test_per_tensor_leaves_padding_out() -> None:
    x = torch.zeros(2, 1, 3, 2)
    x[0, 0, 0] = 1000.0  # padding of sequence 0
    x[0, 0, 2] = 3.0
    real = torch.tensor([[False, True, True], [True, True, True]])
    codes, pairs = quantize(x, side(2, "per-tensor"), real)
    assert pairs[0].tolist() == [[1.0, 0.0]] * 3
    assert codes[0, 0].tolist() == [[3, 3], [0, 0], [3, 3]]
    assert pairs[1].tolist() == [[0.0, 0.0]] * 3


def test_per_tensor_has_finite_pairs_where_a_sequence_has_nothing_but_padding() -> None:
    x = torch.full((2, 1, 3, 2), 7.0)
    real = torch.tensor([[False, False, False], [True, True, True]])
    _, pairs = quantize(x, side(4, "per-tensor"), real)
    assert pairs.tolist() == [[[0.0, 0.0]] * 3, [[0.0, 7.0]] * 3]


def test_a_large_offset_keeps_its_precision() -> None:
    # a key bias of -600 (as Qwen2.5 has) with a spread of 7.5: steps of 0.5, exact in fp16
    x = (-600 + 0.5 * torch.arange(16.0)).view(1, 1, 1, 16)
    codes, pairs = quantize(x, side(4))
    assert torch.equal(dequantize(codes, pairs, side(4)), x)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_error_is_within_half_a_step_and_fp16(bits: int) -> None:
    x = torch.randn(2, 3, 5, 96, generator=torch.Generator().manual_seed(3)) * 4 + 2
    form = side(bits, group=32)
    codes, pairs = quantize(x, form)
    step = pairs[..., 0].float().repeat_interleave(32, -1)
    slack = 2**-10 * x.abs().amax()
    assert bool(((dequantize(codes, pairs, form) - x).abs() <= step / 2 + slack).all())


@pytest.mark.parametrize("text", FORMATS)
def test_pairs_have_the_planners_shape(text: str) -> None:
    form = KVFormat.of(Configuration.parse(text), 0)
    x = torch.randn(2, 3, 256, 80)
    for one in (form.key, form.value):
        if not one.quantized:
            continue
        codes, pairs = quantize(x, one, tensor=torch.ones(2, 3))
        shapes = {b.name: b.shape for b in one.buffers(2, 3, 80, 256 + one.sinks + one.buffered)}
        assert tuple(pairs.shape) == shapes[f"{one.side}_scale"]
        assert tuple(pack(codes, one.bits).shape) == shapes[f"{one.side}_values"]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("dim", [8, 64, 80, 96, 128, 256, 13])
def test_unpacking_undoes_packing(bits: int, dim: int) -> None:
    codes = torch.randint(0, 2**bits, (3, 2, 5, dim), dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape[-1] == row_bytes(dim, bits)
    assert packed.shape[-1] <= -(-dim * bits // 8) + (1 if dim % 8 else 0)
    assert torch.equal(unpack(packed, bits, dim), codes)


def test_packed_bytes_by_hand() -> None:
    assert pack(torch.tensor([1, 2, 15, 4, 7], dtype=torch.uint8), 4).tolist() == [0x21, 0x4F, 7]
    assert pack(torch.tensor([0, 1, 2, 3], dtype=torch.uint8), 2).tolist() == [0b11_10_01_00]


def test_widths_that_divide_no_byte_lie_in_two_parts() -> None:
    # 6 bits: low nibbles 0x1 0xF, 0x4 0x7 in two bytes, then their upper two bits 2 3 0 1
    codes = torch.tensor([0x21, 0x3F, 0x04, 0x17], dtype=torch.uint8)
    assert pack(codes, 6).tolist() == [0xF1, 0x74, 0b01_00_11_10]
    # 5 bits: nibbles, then a bit each; 3 bits: pairs of bits, then a bit each
    assert pack(torch.tensor([16, 1, 31, 2], dtype=torch.uint8), 5).tolist() == [0x10, 0x2F, 0b0101]
    assert pack(torch.tensor([4, 1, 7, 2], dtype=torch.uint8), 3).tolist() == [
        0b10_11_01_00,
        0b0101,
    ]


def test_lloyd_levels_by_hand() -> None:
    # a range of 0 to 3, so scale 1: levels of 32 values at .398 1.1702 1.8298 2.602
    x = torch.zeros(32)
    x[1:6] = torch.tensor([3.0, 0.78, 0.79, 1.51, 2.25])
    form = side(2, group=32, table="lloyd2")
    codes, pairs = quantize(x.view(1, 1, 1, 32), form)
    assert codes.flatten()[:6].tolist() == [0, 3, 0, 1, 2, 3]
    assert pairs.flatten().tolist() == [1.0, 0.0]
    back = dequantize(codes, pairs, form).flatten()[:2]
    assert torch.allclose(back, torch.tensor([1.5 - 1.1018, 1.5 + 1.1018]))


def test_nf4_has_the_ends_and_the_middle_of_a_range() -> None:
    x = as_heads([[-4.0, 2.0, 11.0, 3.5]])  # middle 3.5, half 7.5: scale 1
    form = side(4, table="nf4")
    codes, pairs = quantize(x, form)
    assert codes.flatten().tolist() == [0, 5, 15, 7]  # -.2 of the half is nearest to -.1848
    assert pairs.flatten().tolist() == [1.0, -4.0]
    assert dequantize(codes, pairs, form)[0, 0, 0, 3] == 3.5


def test_floats_keep_three_bits_of_every_size() -> None:
    # largest 448: scale 256, so that codes are e4m3's own
    x = as_heads([[448.0, -1.0, 1.0625, 0.0625, 2.0**-9, -300.0]])
    form = side(8, table="fp8")
    codes, pairs = quantize(x, form)
    assert pairs.flatten().tolist() == [256.0, 0.0]
    assert codes.flatten().tolist() == [0x7E, 0xB8, 0x38, 0x18, 0x01, 0xF9]  # 1.0625: to even
    back = dequantize(codes, pairs, form).flatten().tolist()
    assert back == [448.0, -1.0, 1.0, 0.0625, 2.0**-9, -288.0]


def test_a_clip_narrows_the_range_about_its_middle() -> None:
    form = side(2, clip=50)
    codes, pairs = quantize(as_heads([[0.0, 12.0, 6.1, 5.9]]), form)  # 3 to 9 in steps of 2
    assert pairs.flatten().tolist() == [2.0, 3.0]
    assert codes.flatten().tolist() == [0, 3, 2, 1]


@pytest.mark.parametrize("table", ["fp8", "nf4", "lloyd3", "lloyd2"])
def test_equal_values_and_zeros_come_back(table: str) -> None:
    form = side({"fp8": 8, "nf4": 4, "lloyd3": 3, "lloyd2": 2}[table], table=table)
    for value in (0.0, -3.5):
        x = torch.full((1, 1, 2, 64), value)
        assert torch.equal(dequantize(*quantize(x, form), form), x)
