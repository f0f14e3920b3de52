"""Matrices that four bits hold with zeros behind their inputs (2,880 of gpt-oss)."""

from pathlib import Path

import pytest
import torch

from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.weight_format import AWQ, W4
from kvpareto.planner.memory.weights import weight_bytes
from kvpareto.runtime.weights.awq_format import dequantize, round_to_nearest, with_zeros
from kvpareto.runtime.weights.build import read_hf_config
from kvpareto.runtime.weights.linear import W4Linear, dense
from kvpareto.runtime.weights.quantize import save_awq
from kvpareto.runtime.weights.quantize_modules import apply, packed_bytes, spec_of
from kvpareto.runtime.weights.random import random_model
from kvpareto.runtime.weights.workspace import Workspace
from tests.support.tiny_configs import CONFIGS

INPUTS = 2040  # eight short of sixteen groups


@pytest.mark.parametrize(
    ("inputs", "fits", "stored"),
    [(2048, True, 2048), (2040, True, 2048), (1928, True, 2048), (1927, False, 0), (64, False, 0)],
)
def test_a_sixteenth_of_zeros_at_most(inputs: int, fits: bool, stored: int) -> None:
    assert W4.fits(64, inputs) is fits
    assert not AWQ.fits(64, 2040)
    assert not W4.fits(60, inputs)
    if fits:
        assert W4.padded(inputs) == stored
        assert W4.nbytes(64, inputs) == AWQ.nbytes(64, stored)


def test_zeros_change_no_product() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(24, INPUTS), torch.randn(2, 3, INPUTS)
    layer = W4Linear.from_weight(weight, None, Workspace(24 * 2048, "cpu"))
    assert layer.in_features == INPUTS
    expected = dequantize(round_to_nearest(with_zeros(weight, 128), 128))[:, :INPUTS]
    torch.testing.assert_close(layer(x), x @ expected.T, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(dense(layer, torch.float32), expected)
    assert ((layer(x) - x @ weight.T).norm() / (x @ weight.T).norm()) < 0.15


@pytest.mark.parametrize("random", [False, True])
def test_experts_of_gpt_oss_are_packed_as_planned(random: bool) -> None:
    config = {k: v for k, v in CONFIGS["gpt_oss"].items() if v != "absent"}
    config |= {"hidden_size": INPUTS, "intermediate_size": INPUTS, "num_hidden_layers": 1}
    config |= {"dtype": "float32", "num_attention_heads": 4, "head_dim": 64}
    if random:
        model = random_model(config, 4, dtype=torch.float32)
    else:
        model = random_model(read_hf_config(config).to_dict(), 16, dtype=torch.float32)
        whole = model(torch.tensor([[1, 2, 3]])).logits
        apply(model, 4)
        rounded = model(torch.tensor([[1, 2, 3]])).logits
        assert (rounded - whole).norm() < 0.3 * whole.norm()
    planned = weight_bytes(spec_of(model), 4)
    assert not planned.misfits
    assert packed_bytes(model) == planned.total
    assert model.get_submodule("weight_workspace").scratch.numel() == planned.workspace
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


def test_no_awq_checkpoint_is_made_of_them(tmp_path: Path) -> None:
    config = {k: v for k, v in CONFIGS["llama"].items() if v != "absent"}
    config |= {"hidden_size": INPUTS, "num_attention_heads": 4, "num_key_value_heads": 4,
               "head_dim": 128, "intermediate_size": 128, "num_hidden_layers": 1}  # fmt: skip
    model = random_model(config, 4, dtype=torch.float32)
    with pytest.raises(BadInput, match="2040 inputs has no place in an AWQ checkpoint"):
        save_awq(model, tmp_path)
