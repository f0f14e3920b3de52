"""Constants of a forward that are kept: Gemma 3n cuts where transformers does."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kvpareto.runtime.generation.constants import (
    NumbersOnDevice,
    hold_constants,
    on_device,
    restore,
)
from tests.support.tiny_configs import CONFIGS


def sparse_model() -> Any:
    torch.manual_seed(0)
    fields = {k: v for k, v in CONFIGS["gemma3n_text"].items() if v != "absent"}
    layers = fields["num_hidden_layers"]
    fields |= {"activation_sparsity_pattern": [0.9, 0.5] + [0.0] * (layers - 2)}
    fields.pop("model_type")
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["gemma3n_text"](**fields))
    return model.float().eval()


def test_the_kept_quantile_is_transformers_own() -> None:
    model = sparse_model()
    ids = torch.randint(3, 90, (1, 12))
    expected = model(ids, use_cache=False).logits
    changed = hold_constants(model)
    assert len(changed) == 2
    assert not hold_constants(model)
    for _ in range(2):
        assert torch.equal(model(ids, use_cache=False).logits, expected)
    held = changed[0]._gaussian_topk.args[1]
    assert list(held) == [(torch.device("cpu"), torch.float32)]
    held[torch.device("cpu"), torch.float32] += 1
    assert not torch.equal(model(ids, use_cache=False).logits, expected)
    restore(changed)
    assert torch.equal(model(ids, use_cache=False).logits, expected)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_number_of_the_host_is_filled_in_on_the_device(mode: Any) -> None:
    """Passes run in inference mode, where `to` comes whole; else it comes as a copy. The meta
    device stands for a GPU; what lies there already and what is no number are let through."""
    seen = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(func.overloadpacket)
            return func(*args, **(kwargs or {}))

    with mode(), Spy(), NumbersOnDevice():
        least = torch.tensor(1e-5)
        there = [least.to("meta"), least.to("meta", torch.bfloat16)]
        kept, row = least.to(torch.float64), torch.tensor([1.0, 2.0]).to("meta")
    assert [(x.device.type, x.dtype) for x in there] == [
        ("meta", torch.float32),
        ("meta", torch.bfloat16),
    ]
    assert seen.count(torch.ops.aten.full) == 2
    assert kept.item() == pytest.approx(1e-5)
    assert row.shape == (2,)


def test_only_models_that_make_numbers_are_watched() -> None:
    plain, sparse = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    sparse._gaussian_topk = abs  # type: ignore[assignment]
    assert not isinstance(on_device(plain), NumbersOnDevice)
    assert isinstance(on_device(torch.nn.Sequential(plain, sparse)), NumbersOnDevice)
