"""Constants of a forward that are kept: Gemma 3n cuts where transformers does."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kvpareto.runtime.generation.constants import hold_constants, restore
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
