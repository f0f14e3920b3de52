"""Both names that transformers has had for the cache a model is given."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("triton")

from kvpareto.runtime.cache.cache_name import cache_name
from tests.support.runtime_builders import session, small_model


class _Until523(nn.Module):
    def forward(self, input_ids: Any, past_key_values: Any = None) -> Any: ...


class _Since524(nn.Module):
    def forward(self, input_ids: Any, cache: Any = None, **kwargs: Any) -> Any: ...


def test_the_name_is_read_from_the_forward() -> None:
    assert cache_name(_Until523()) == "past_key_values"
    assert cache_name(_Since524()) == "cache"


def _renamed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    """A call as a decoder layer makes it, the cache under the other name."""
    here, there = "past_key_values", "cache"
    if there in kwargs:
        here, there = there, here
    kwargs[there] = kwargs.pop(here)
    return forward(*args, **kwargs)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_fused_attention_takes_the_cache_by_either_name(family: str) -> None:
    model: Any = small_model(family)
    ids = torch.randint(3, 97, (1, 9), generator=torch.Generator().manual_seed(1))
    with session(model, "w16a16-k8v8+pc5", tokens=16, fused=True, kernels=False) as run:
        expected = run.prefill(ids).clone()
    with session(model, "w16a16-k8v8+pc5", tokens=16, fused=True, kernels=False) as run:
        for layer in model.model.layers:
            layer.self_attn.forward = partial(_renamed, layer.self_attn.forward)
        assert torch.equal(run.prefill(ids), expected)
