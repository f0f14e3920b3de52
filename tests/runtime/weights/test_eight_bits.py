"""Products of prompts in 8 bits: rows as the reference rounds them, kernels, sessions, planner."""

from typing import Any

import pytest
import torch

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.activation.workspace import eight_bit_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.runtime.session import Session
from kvpareto.runtime.weights import fused_projections, layout
from kvpareto.runtime.weights.awq_format import round_to_nearest
from kvpareto.runtime.weights.eight_bits.reference import (
    quantized_rows,
    quantized_weight,
    rounded_weight,
)
from kvpareto.runtime.weights.layout import Packed4
from kvpareto.runtime.weights.linear import W4Linear
from kvpareto.runtime.weights.random import random_model
from kvpareto.runtime.weights.workspace import Workspace
from tests.support.models.weights_models import TINY

ON_GPU = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
    reason="no Hopper GPU",
)


def rows_of(count: int, inputs: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rows of very different sizes, one input of each block massive."""
    x = torch.randn(count, inputs, generator=torch.Generator().manual_seed(count))
    x[:, 3::128] *= 500
    return (x * torch.logspace(-4, 4, count)[:, None]).to(dtype)


def weight_of(inputs: int, outputs: int, group: int = 128) -> Packed4:
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(inputs))
    weight[1] *= 30
    return layout.from_awq(round_to_nearest(weight, group))


def parts_of(weight: Packed4) -> tuple[torch.Tensor, ...]:
    return weight.words, weight.zeros, weight.scales


def assert_same_codes(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for ties that a last bit of float32 decides; in Triton's interpreter, which loses
    what a mantissa carries into the exponent, nine in ten."""
    from kvpareto.runtime.weights import launch

    same = (found.cpu().float() == expected.float()).float().mean()
    assert same > (0.9 if launch.INTERPRETED else 0.999)


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


def test_rows_are_rounded_to_the_nearest_under_their_largest() -> None:
    x = rows_of(7, 256)
    rows = quantized_rows(x)
    assert (rows.codes.shape, rows.scales.shape) == ((7, 256), (7, 1))
    assert torch.allclose(rows.scales[:, 0], x.abs().amax(dim=1) / 448, rtol=1e-6)
    assert (rows.codes.float().abs().amax(dim=1) == 448).all()
    # three bits of mantissa: half of an eighth; below 2^-6 of the scale, half of 2^-9
    step = torch.maximum(x.abs() / 16, rows.scales * 2**-10)
    assert ((rows.values(torch.float32) - x).abs() <= step * 1.0001).all()


def test_zeros_stay_zeros_and_tiny_rows_finite() -> None:
    x = torch.zeros(2, 128)
    x[1] = 1e-30
    assert torch.equal(quantized_rows(x).values(torch.float32), torch.zeros(2, 128))


@pytest.mark.parametrize("group", [32, 128])
def test_weights_keep_three_bits_of_mantissa(group: int) -> None:
    weight = weight_of(512, 48, group)
    exact, rounded = weight.dequantized(torch.float32), rounded_weight(weight, torch.float32)
    _, scales = quantized_weight(weight)
    assert torch.allclose(scales[0], 15 * weight.scales.float().amax(dim=0) / 448, rtol=1e-6)
    step = torch.maximum(exact.abs() / 16, scales * 2**-10)
    assert ((rounded - exact).abs() <= step * 1.0001).all()
    assert 0.02 < relative_error(rounded, exact) < 0.03


@pytest.mark.parametrize("inputs", [256, 192])  # 192: stored with zeros behind
def test_a_layer_multiplies_with_rounded_rows_beyond_a_few(inputs: int) -> None:
    weight = torch.randn(48, inputs, generator=torch.Generator().manual_seed(1))
    workspace = Workspace(48 * 256, "cpu")
    layer = W4Linear.from_weight(weight, torch.randn(48), workspace)
    packed = layer.packed
    exact, rounded = packed.dequantized(torch.float32), rounded_weight(packed, torch.float32)
    for count, rounds in ((64, False), (65, True)):
        x = rows_of(count, inputs)
        padded = torch.nn.functional.pad(x, (0, 256 - inputs))
        workspace.rows_in_8_bits = False
        plain = layer(x)
        workspace.rows_in_8_bits = True
        held = quantized_rows(padded).values(torch.float32) if rounds else padded
        assert torch.equal(layer(x), torch.addmm(layer.bias, held, rounded if rounds else exact))
        assert torch.equal(layer(x), plain) != rounds


def test_projections_of_one_input_round_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TINY | {"vocab_size": 128}
    model = random_model(config, 4, dtype=torch.float32)
    counted = []
    plain = fused_projections.rows_in_8_bits

    def counting(x: torch.Tensor, weight: Packed4) -> object:
        counted.append(x.shape)
        return plain(x, weight)

    monkeypatch.setattr(fused_projections, "rows_in_8_bits", counting)
    spec, run = read_model(config, "tiny"), Configuration.parse("w4a8-k16v16")
    with Session(model, spec, run, tokens=100) as session:
        first = session.prefill(torch.arange(80)[None]).clone()
        # q, k, v and gate, up; of the last layer's feed-forward one row is read
        assert counted == [(80, 128)] * (2 * len(spec.layers) - 1)
        second = session.prefill(torch.arange(80)[None])
        assert torch.equal(first, second)
        assert len(counted) == 4 * len(spec.layers) - 2
    assert all(
        module._rounded is None
        for layer in model.modules()
        if isinstance(layer, W4Linear) and layer.joint is not None
        for module in [layer.joint[0]]
        if isinstance(module, fused_projections.JointProjection)
    )


def test_sessions_of_one_model_keep_their_own_choice() -> None:
    config = TINY | {"vocab_size": 128}
    model = random_model(config, 4, dtype=torch.float32)
    spec, ids = read_model(config, "tiny"), torch.arange(90)[None]
    plain, eight = (Configuration.parse(f"w4{a}-k16v16") for a in ("a16", "a8"))
    with (
        Session(model, spec, plain, tokens=100) as one,
        Session(model, spec, eight, tokens=100) as two,
    ):
        first, other = one.prefill(ids).clone(), two.prefill(ids).clone()
        assert 1e-3 < relative_error(other, first) < 0.2
        assert torch.equal(one.prefill(ids), first)
        assert torch.equal(two.prefill(ids), other)
        short = ids[:, :64]
        assert torch.equal(one.prefill(short), two.prefill(short))


def test_bytes_of_rows_are_the_planner_s() -> None:
    rows = quantized_rows(rows_of(33, 384))
    assert (rows.codes.nbytes, rows.scales.nbytes) == eight_bit_bytes(33, 384)


def test_kernels_write_what_the_reference_does() -> None:
    pytest.importorskip("triton")
    from kvpareto.runtime.weights import launch
    from kvpareto.runtime.weights.eight_bits import product

    device = "cpu" if launch.INTERPRETED else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU, or TRITON_INTERPRET=1")
    x = rows_of(21, 512, torch.bfloat16)
    wide = torch.full((21, 640), torch.nan, dtype=torch.bfloat16)
    wide[:, :512] = x
    found, expected = product.quantize(wide.to(device)[:, :512]), quantized_rows(x)
    assert torch.equal(found.scales.cpu(), expected.scales)
    assert_same_codes(found.codes, expected.codes)
    for group in (32, 128):
        weight = weight_of(512, 72, group)
        there = Packed4(*(part.to(device) for part in parts_of(weight)))
        codes, scales = product.codes_of(there, Workspace(512 * 72, device))
        expected_codes, expected_scales = quantized_weight(weight)
        assert torch.equal(scales.cpu(), expected_scales)
        assert_same_codes(codes, expected_codes)


@pytest.mark.gpu
@ON_GPU
@pytest.mark.parametrize("rows", [65, 96, 300, 1001])
@pytest.mark.parametrize("shape", [(256, 48), (1024, 208), (4096, 6144), (14336, 4096)])
def test_products(rows: int, shape: tuple[int, int]) -> None:
    inputs, outputs = shape
    weight = weight_of(inputs, outputs)
    there = Packed4(*(part.cuda() for part in parts_of(weight)))
    workspace = Workspace(inputs * outputs, "cuda")
    workspace.rows_in_8_bits = True
    layer = W4Linear(there, torch.randn(outputs).to("cuda", torch.bfloat16), workspace)
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows))
    x[:, 3::128] *= 20
    x = x.to("cuda", torch.bfloat16)
    held = quantized_rows(x).values(torch.float32).double()
    want = held @ rounded_weight(there, torch.float32).double() + layer.bias.double()
    y = layer(x)
    assert y.shape == (rows, outputs)
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous()
    # 4.03e-3 was seen on an H200 at 65 rows; sums of 14 bits on the tensor cores and bfloat16 are
    # the likely cause, which nothing here shows
    assert relative_error(y, want) < 6e-3


def test_rows_that_not_all_members_asked_for_are_let_go() -> None:
    """Of a prompt's last layer keys and values are asked for, and queries of one row later."""
    model: Any = random_model(TINY | {"vocab_size": 128}, 4, dtype=torch.float32)
    attention = model.model.layers[0].self_attn
    joint = attention.k_proj.joint[0]
    model.weight_workspace.rows_in_8_bits = True
    for rows in (80, 8):
        x = torch.randn(rows, 128)
        attention.k_proj(x)
        assert joint._rounded is not None or joint._output is not None
        fused_projections.let_go(attention.k_proj)
        assert joint._rounded is joint._output is joint._input is None
    fused_projections.let_go(torch.nn.Linear(2, 2))  # has nothing
