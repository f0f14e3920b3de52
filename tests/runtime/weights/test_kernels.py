"""The kernels on packed weights against their reference, here in Triton's interpreter."""

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.runtime.weights import launch, layout
from kvpareto.runtime.weights.awq_format import round_to_nearest
from kvpareto.runtime.weights.layout import Packed, Packed4
from kvpareto.runtime.weights.random import random_model
from kvpareto.runtime.weights.workspace import Workspace
from tests.support.models.weights_models import TINY_MOE

DEVICE = "cpu" if launch.INTERPRETED else "cuda"
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(),
    reason="needs a GPU, or TRITON_INTERPRET=1",
)
# Triton's interpreter cuts fp32 to bf16 where a GPU rounds: an error of up to 2^-7 of a value.
TOLERANCE = {torch.bfloat16: 2**-7 if launch.INTERPRETED else 3e-3, torch.float16: 4e-4}
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])


def packed_weight(bits: int, inputs: int, out: int, group: int = 128) -> Packed:
    """A packed random matrix with an outlier column, on the test's device."""
    weight = torch.randn(out, inputs, generator=torch.Generator().manual_seed(inputs + out))
    weight[1] *= 30
    if bits == 8:
        packed: Packed = layout.quantize8(weight)
        return layout.Packed8(packed.words.to(DEVICE), packed.scales.to(DEVICE))
    four = layout.from_awq(round_to_nearest(weight, group))
    return Packed4(four.words.to(DEVICE), four.zeros.to(DEVICE), four.scales.to(DEVICE))


def activations(rows: int, inputs: int, dtype: torch.dtype) -> torch.Tensor:
    """Random activations with one massive channel, as language models have."""
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows))
    x[:, 3] *= 200
    return x.to(dtype).to(DEVICE)


def bias_of(out: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(out, generator=torch.Generator().manual_seed(out)).to(dtype).to(DEVICE)


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


def exact(x: torch.Tensor, weight: Packed, bias: torch.Tensor | None = None) -> torch.Tensor:
    product = x.double() @ weight.dequantized(torch.float32).double()
    return product if bias is None else product + bias.double()


def assert_same_weight(got: torch.Tensor, weight: Packed) -> None:
    """Equal to the reference to the bit, or to the last bit where bf16 was cut."""
    want = weight.dequantized(got.dtype)
    if launch.INTERPRETED and got.dtype == torch.bfloat16:
        assert ((got - want).abs() <= want.abs() * 2**-7).all()
    else:
        assert torch.equal(got, want)


# (inputs, out): a whole number of column blocks, a ragged end, fewer columns than a block
SHAPES = [(256, 256), (512, 136), (128, 24)]


@DTYPES
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("inputs", "out"), SHAPES)
@pytest.mark.parametrize("splits", [1, 4])
def test_one_row(bits: int, inputs: int, out: int, splits: int, dtype: torch.dtype) -> None:
    weight, x = packed_weight(bits, inputs, out), activations(1, inputs, dtype)
    workspace = Workspace(inputs * out, DEVICE)
    workspace.scratch.fill_(0xFF)  # NaN in every format
    bias = bias_of(out, dtype)
    plan = launch.LaunchPlan(columns=128, lanes=4, splits=splits, warps=4, stages=1)
    y = launch.one_row(x, weight, bias, workspace, plan=plan)
    assert y.dtype == dtype
    assert relative_error(y, exact(x, weight, bias)) < TOLERANCE[dtype]
    assert torch.equal(launch.one_row(x, weight, bias, workspace, plan=plan), y)
    assert not workspace.counters.any()


@DTYPES
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("inputs", "out"), [*SHAPES, (384, 264)])
def test_the_way_that_runs_for_one_row(
    bits: int, inputs: int, out: int, dtype: torch.dtype
) -> None:
    """On a GPU the CUDA kernel where NVRTC is there; here Triton's with its own plan."""
    weight, x = packed_weight(bits, inputs, out), activations(1, inputs, dtype)
    workspace = Workspace(inputs * out, DEVICE)
    workspace.scratch.fill_(0xFF)
    y = launch.one_row(x, weight, None, workspace)
    assert relative_error(y, exact(x, weight)) < TOLERANCE[dtype]
    assert torch.equal(launch.one_row(x, weight, None, workspace), y)
    assert not workspace.counters.any()


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("rows", [1, 3, 12])
def test_smaller_groups(group: int, rows: int) -> None:
    weight, x = packed_weight(4, 256, 64, group), activations(rows, 256, torch.bfloat16)
    workspace = Workspace(256 * 64, DEVICE)
    product = launch.one_row if rows == 1 else launch.few_rows
    assert (
        relative_error(product(x, weight, None, workspace), exact(x, weight))
        < TOLERANCE[torch.bfloat16]
    )
    out = torch.full((256, 64), float("nan"), dtype=torch.bfloat16, device=DEVICE)
    launch.dequantize(weight, out)
    assert_same_weight(out, weight)


@DTYPES
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("inputs", "out"), SHAPES)
@pytest.mark.parametrize("rows", [2, 5, 17])
def test_few_rows(bits: int, inputs: int, out: int, rows: int, dtype: torch.dtype) -> None:
    weight, x = packed_weight(bits, inputs, out), activations(rows, inputs, dtype)
    workspace = Workspace(inputs * out, DEVICE)
    workspace.scratch.fill_(0xFF)
    bias = bias_of(out, dtype)
    y = launch.few_rows(x, weight, bias, workspace)
    assert relative_error(y, exact(x, weight, bias)) < TOLERANCE[dtype]
    assert torch.equal(launch.few_rows(x, weight, bias, workspace), y)
    assert not workspace.counters.any()


@pytest.mark.parametrize("rows", [33, 64])
def test_more_rows_than_one_pass_takes(rows: int) -> None:
    weight, x = packed_weight(4, 128, 24), activations(rows, 128, torch.bfloat16)
    workspace = Workspace(128 * 24 * rows, DEVICE)
    y = launch.few_rows(x, weight, None, workspace)
    assert relative_error(y, exact(x, weight)) < TOLERANCE[torch.bfloat16]
    assert not workspace.counters.any()


@DTYPES
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("inputs", "out"), [*SHAPES, (384, 264)])
def test_dequantize_equals_the_reference(
    bits: int, inputs: int, out: int, dtype: torch.dtype
) -> None:
    weight = packed_weight(bits, inputs, out)
    result = torch.full((inputs, out), float("nan"), dtype=dtype, device=DEVICE)
    launch.dequantize(weight, result)
    assert_same_weight(result, weight)


def test_eight_bits_take_inputs_that_are_no_power_of_two() -> None:
    weight, x = packed_weight(8, 172, 64), activations(1, 172, torch.bfloat16)
    workspace = Workspace(172 * 64, DEVICE)
    assert (
        relative_error(launch.one_row(x, weight, None, workspace), exact(x, weight))
        < TOLERANCE[torch.bfloat16]
    )
    x = activations(5, 172, torch.bfloat16)
    assert (
        relative_error(launch.few_rows(x, weight, None, workspace), exact(x, weight))
        < TOLERANCE[torch.bfloat16]
    )
    result = torch.full((172, 64), float("nan"), dtype=torch.bfloat16, device=DEVICE)
    launch.dequantize(weight, result)
    assert_same_weight(result, weight)


@pytest.mark.parametrize("bits", [4, 8])
def test_columns_of_a_wider_matrix(bits: int) -> None:
    """Joined projections keep views of their columns: rows are then strided."""
    whole = packed_weight(bits, 256, 96)
    part: Packed
    if isinstance(whole, Packed4):
        part = Packed4(whole.words[:, 32:72], whole.zeros[:, 4:9], whole.scales[:, 32:72])
    else:
        part = layout.Packed8(whole.words[:, 32:72], whole.scales[32:72])
    workspace = Workspace(256 * 96, DEVICE)
    for rows, product in ((1, launch.one_row), (3, launch.few_rows)):
        x = activations(rows, 256, torch.bfloat16)
        want = exact(x, whole)[:, 32:72]
        assert relative_error(product(x, part, None, workspace), want) < TOLERANCE[torch.bfloat16]
    out = torch.full((256, 40), float("nan"), dtype=torch.bfloat16, device=DEVICE)
    launch.dequantize(part, out)
    assert_same_weight(out, part)


@pytest.mark.parametrize("bits", [4, 8])
def test_each_row_may_take_its_own_expert(bits: int) -> None:
    one = packed_weight(bits, 128, out=24)
    words = torch.stack([torch.roll(one.words, i, -1) for i in range(3)])  # three unlike experts
    stack: Packed
    if isinstance(one, Packed4):
        stack = Packed4(words, torch.stack([one.zeros] * 3), torch.stack([one.scales] * 3))
    else:
        stack = layout.Packed8(words, torch.stack([one.scales] * 3))
    bias = torch.randn(3, 24).to(torch.bfloat16).to(DEVICE)
    x = activations(2, 128, torch.bfloat16)
    experts = torch.tensor([2, 0, 1, 1], device=DEVICE)  # two experts a token
    y = launch.one_row(x, stack, bias, Workspace(128 * 24, DEVICE), experts=experts, rows=4)
    for row, expert in enumerate(experts.tolist()):
        want = exact(x[row // 2], stack.member(expert), bias[expert])
        assert relative_error(y[row], want) < TOLERANCE[torch.bfloat16], (row, expert)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("hidden", [128, 192], ids=["packed", "partly-packed"])
def test_a_decode_step_of_experts_equals_a_chunk(bits: int, hidden: int) -> None:
    """At 4 bits and width 192, gate and up cannot be packed, down can."""
    config = {**TINY_MOE, "hidden_size": hidden, "num_hidden_layers": 1}
    model = random_model(config, bits, DEVICE)
    experts = model.model.layers[0].mlp.experts
    assert (experts.stack("first") is None) == (bits == 4 and hidden == 192)
    x = torch.randn(2, hidden).to(torch.bfloat16).to(DEVICE)
    chosen = torch.tensor([[0, 3], [2, 1]], device=DEVICE)
    weights = torch.tensor([[0.7, 0.3], [0.4, 0.6]], device=DEVICE)
    step = experts._decode(x, chosen, weights)
    chunk = experts._one_by_one(x, chosen, weights)
    assert relative_error(step, chunk) < 3 * TOLERANCE[torch.bfloat16]
    together = torch.empty_like(x)
    experts._together(x, chosen, weights, together)
    assert relative_error(together, chunk) < 3 * TOLERANCE[torch.bfloat16]
