"""The AWQ checkpoint format and the order in which packed weights lie while they run."""

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch

from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.weight_format import AWQ, INT8
from kvpareto.runtime.weights import awq_format, layout, rounding
from kvpareto.runtime.weights.layout import Packed
from kvpareto.runtime.weights.linear import W4Linear, W8Linear
from kvpareto.runtime.weights.workspace import Workspace

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")],
)


def test_pack_puts_output_columns_in_the_published_nibble_order() -> None:
    codes = torch.arange(8, dtype=torch.uint8)[None]  # column n holds code n
    word = awq_format.pack(codes)[0, 0].item() & 0xFFFFFFFF
    # low nibble first: columns 0 2 4 6 1 3 5 7
    assert f"{word:08x}" == "75316420"


def test_pack_and_unpack_are_inverse_with_the_sign_bit_in_use() -> None:
    codes = torch.randint(0, 16, (384, 40), generator=torch.Generator().manual_seed(1))
    codes[:, 7] = 15  # the nibble that holds the word's sign bit
    codes = codes.to(torch.uint8)
    assert torch.equal(awq_format.unpack(awq_format.pack(codes)), codes)
    assert torch.equal(layout.unpack4(layout.pack4(codes)), codes)
    assert torch.equal(layout.unpack_zeros(layout.pack_zeros(codes)), codes)


def test_dequantize_by_hand() -> None:
    codes = torch.zeros(2, 8, dtype=torch.uint8)
    codes[1, 3] = 9
    zeros = torch.full((1, 8), 4, dtype=torch.uint8)
    scales = torch.full((1, 8), 0.5, dtype=torch.float16)
    tensors = awq_format.AWQTensors(awq_format.pack(codes), awq_format.pack(zeros), scales)
    weight = awq_format.dequantize(tensors)
    assert weight.shape == (8, 2)
    assert weight[3, 1] == 2.5  # (9 - 4) * 0.5
    assert weight[3, 0] == -2.0


def test_a_word_of_the_running_layout_holds_pairs_of_planes() -> None:
    codes = torch.zeros(256, 8, dtype=torch.uint8)
    codes[128 + 32 * 2 + 2 * 5 + 1, 6] = 13  # block 1, plane 2, row 5, odd input
    words = layout.pack4(codes)
    assert words.shape == (32, 8)
    assert words[16 + 5, 6] == 13 << (8 * 2 + 4)
    assert words.count_nonzero() == 1


def test_eight_bit_words_split_the_inputs_in_two_planes() -> None:
    codes = torch.full((12, 3), -128, dtype=torch.int8)
    codes[6 + 2 * 2 + 1, 1] = -127  # plane 1 of 6 inputs, row 2, odd input: byte 3
    words = layout.pack8(codes)
    assert words.shape == (3, 3)
    assert words[2, 1] == 1 << 24
    assert words.count_nonzero() == 1
    assert torch.equal(layout.unpack8(words), codes)


def test_a_group_of_zeros_has_a_scale_that_can_be_divided_by() -> None:
    tensors = awq_format.round_to_nearest(torch.zeros(8, 64), 32)
    assert (tensors.scales == torch.finfo(torch.float16).tiny).all()
    assert awq_format.dequantize(tensors).count_nonzero() == 0


@pytest.mark.parametrize("group", [32, 64, 128])
def test_rounding_stays_within_half_a_step(group: int) -> None:
    weight = torch.randn(24, 256, generator=torch.Generator().manual_seed(2))
    weight[3] *= 100  # an outlier row
    weight[4] = 0
    weight[5] = weight[5].abs() + 1  # a group whose range does not hold 0 of itself
    tensors = awq_format.round_to_nearest(weight, group)
    tensors.check("layer")
    error = (awq_format.dequantize(tensors) - weight).abs()
    step = tensors.scales.float().repeat_interleave(group, dim=0).T
    # A scale is rounded to fp16, which may lose up to 15 steps * 2^-11 at the range's end,
    # and the zero point's own rounding moves the ends by up to half a step more.
    assert (error <= step * (1.0 + 15 / 2048)).all()
    assert (error[6:] <= step[6:] * 0.5).float().mean() > 0.9
    assert (error[4] == 0).all()


def test_layout_conversion_keeps_every_weight_and_every_byte() -> None:
    weight = torch.randn(48, 384, generator=torch.Generator().manual_seed(3))
    tensors = awq_format.round_to_nearest(weight, 128)
    packed = layout.from_awq(tensors)
    assert torch.equal(packed.dequantized(torch.float32).T, awq_format.dequantize(tensors))
    back = layout.to_awq(packed)
    for name in ("qweight", "qzeros", "scales"):
        assert torch.equal(getattr(back, name), getattr(tensors, name)), name
    total = sum(t.nbytes for t in (packed.words, packed.zeros, packed.scales))
    assert total == tensors.nbytes


@pytest.mark.parametrize(("out", "inputs"), [(8, 128), (72, 640), (1024, 256)])
def test_bytes_are_the_planners(out: int, inputs: int) -> None:
    weight = torch.randn(out, inputs, generator=torch.Generator().manual_seed(4))
    workspace = Workspace(out * inputs, "cpu")
    four = W4Linear.from_weight(weight, None, workspace)
    eight = W8Linear.from_weight(weight, None, workspace)
    assert sum(b.nbytes for b in four.buffers()) == AWQ.nbytes(out, inputs)
    assert sum(b.nbytes for b in eight.buffers()) == INT8.nbytes(out, inputs)
    assert workspace.scratch.nbytes == 2 * out * inputs


def test_int8_error_is_at_most_half_a_step() -> None:
    weight = torch.randn(20, 172, generator=torch.Generator().manual_seed(5))
    packed = layout.quantize8(weight)
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    error = (packed.dequantized(torch.float32).T - weight).abs()
    assert (error <= step * (0.5 + 127 / 2048)).all()


@pytest.mark.parametrize("kind", ["inputs", "outputs", "group"])
def test_shapes_the_format_cannot_hold_are_refused(kind: str) -> None:
    out, inputs, group = {
        "inputs": (16, 192, 128),
        "outputs": (12, 128, 128),
        "group": (16, 96, 64),
    }[kind]
    with pytest.raises(BadInput):
        awq_format.round_to_nearest(torch.zeros(out, inputs), group)


def test_tensors_of_another_shape_are_named() -> None:
    good = awq_format.round_to_nearest(torch.randn(16, 128), 128)
    bad = awq_format.AWQTensors(good.qweight[:, :1], good.qzeros, good.scales)
    with pytest.raises(BadInput, match=r"model\.layers\.0\.q_proj"):
        bad.check("model.layers.0.q_proj")


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("rounded", [rounding.rounded4, rounding.rounded8])
def test_rounding_a_block_of_rows_at_a_time_gives_the_same_bits(
    rounded: Callable[..., Packed], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding, "BLOCK", 40 * 256)  # 40 of 72 rows
    weight = torch.randn(72, 256, generator=torch.Generator().manual_seed(6)).bfloat16()
    weight[3], weight[8, :128] = 0, 7.0
    whole, blocks = rounded(weight), rounded(weight, torch.device(device))
    assert blocks.words.device == weight.device
    for field in fields(whole):
        assert torch.equal(getattr(blocks, field.name), getattr(whole, field.name)), field.name
