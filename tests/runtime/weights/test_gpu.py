"""Packed models at real shapes on a GPU: building them, their bytes, and that all ways agree."""

import gc
import json
from pathlib import Path

import pytest
import torch

from kvpareto.planner.memory.weights import weight_bytes
from kvpareto.runtime.weights.quantize_modules import packed_bytes, spec_of
from kvpareto.runtime.weights.random import random_model
from tests.support.models.weights_models import apart

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NAMES = ["meta-llama--Llama-3.1-8B-Instruct", "Qwen--Qwen2.5-3B-Instruct", "Qwen--Qwen3-30B-A3B"]
MODELS = Path(__file__).parents[3] / "profiles" / "models"


def config(name: str) -> dict:
    return json.loads((MODELS / f"{name}.json").read_text())


def requested(which: str) -> int:
    """Bytes that tensors asked of the allocator, which rounds large ones up by up to 1 MiB."""
    return torch.cuda.memory_stats()[f"requested_bytes.all.{which}"]


def token_errors(got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
    """Relative error of each token's logits; shapes [1, tokens, vocab]."""
    difference = (got.float() - want.float()).norm(dim=-1)
    return (difference / want.float().norm(dim=-1)).flatten()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", NAMES)
def test_building_needs_little_more_than_the_model(name: str, bits: int) -> None:
    gc.collect()  # an earlier test's model may still wait in a cycle
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = requested("current")
    model = random_model(config(name), bits, "cuda")
    taken, peak = requested("current") - before, requested("peak") - before
    predicted = weight_bytes(spec_of(model), bits)
    print(f"{name} w{bits}: {predicted.total} predicted, {taken} taken, peak {peak}")
    assert packed_bytes(model) == predicted.total
    # Beside the weights and the workspace only counters and RoPE's frequencies.
    whole = predicted.total + predicted.workspace
    assert whole <= taken <= whole + 2**16
    assert peak <= 1.02 * taken  # two joined projections for a moment


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", NAMES)
def test_all_ways_to_multiply_agree(name: str, bits: int) -> None:
    """Causal attention: a prefix has the whole prompt's logits, whatever kernel it ran in."""
    model = random_model(config(name), bits, "cuda", layers=2)
    prompt = torch.randint(1000, (1, 200), device="cuda")
    with torch.no_grad():
        whole = model(prompt, use_cache=False).logits
        prefixes = [
            m(prompt[:, :n], use_cache=False).logits
            for m in (model, apart(model))
            for n in (1, 2, 3, 13, 40, 70)
        ]
    errors = [token_errors(y, whole[:, : y.shape[1]]) for y in prefixes]
    print(name, bits, [round(e.max().item(), 4) for e in errors])
    # The median, because a router's choice may flip on rounding, which changes a token's logits.
    assert torch.cat(errors).median() < 2e-2
    if "A3B" not in name:
        assert torch.cat(errors).max() < 4e-2


@pytest.mark.parametrize("name", NAMES)
def test_a_captured_step_replays(name: str) -> None:
    model = random_model(config(name), 4, "cuda", layers=2)
    token = torch.tensor([[5]], device="cuda")
    with torch.no_grad():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(2):
                model(token, use_cache=False)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = model(token, use_cache=False).logits
        token.fill_(77)
        graph.replay()
        assert torch.equal(captured, model(token, use_cache=False).logits)
