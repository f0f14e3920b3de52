"""What one rank of several has of each layer, and whether the longest sequence fits its cache."""

from dataclasses import replace
from typing import Any

import pytest

import kvpareto
from kvpareto.planner.engine import Interval
from kvpareto.planner.engines.vllm import VLLM
from kvpareto.planner.engines.vllm.place import candidates
from kvpareto.planner.engines.vllm.rank import rank_spec
from kvpareto.planner.engines.vllm.settings import ServeSettings
from kvpareto.planner.engines.vllm.start import start
from kvpareto.planner.errors import NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.spec import DenseFFN, LatentAttention, MoEFFN
from kvpareto.planner.placement import Machine
from kvpareto.planner.workload import Workload

MIXTURE = load_model("deepseek-ai/DeepSeek-V2-Lite-Chat", offline=True)
"""26 layers of 64 experts of 1,408 channels, two shared ones; the first layer is dense, of 10,944;
16 heads."""


@pytest.mark.parametrize(
    ("words", "width", "shared", "dense", "heads"),
    [
        pytest.param({}, 1408, 2816, 10_944, 16, id="alone"),
        pytest.param({"tensor_parallel": 2}, 704, 1408, 5472, 8, id="parts"),
        pytest.param(
            {"tensor_parallel": 2, "expert_parallel": True}, 1408, 1408, 5472, 8, id="whole"
        ),
        pytest.param(
            {"data_parallel": 4, "expert_parallel": True}, 1408, 2816, 10_944, 16, id="replicas"
        ),
    ],
)
def test_experts_are_cut_or_spread(
    words: dict[str, Any], width: int, shared: int, dense: int, heads: int
) -> None:
    rank = rank_spec(MIXTURE, ServeSettings(4096, **words))
    first, later = rank.layers[0], rank.layers[1]
    assert isinstance(first.ffn, DenseFFN)
    assert isinstance(later.ffn, MoEFFN)
    assert (later.ffn.width, later.ffn.shared_width, later.ffn.experts) == (width, shared, 64)
    assert first.ffn.width == dense
    for layer in (first, later):
        (mixer,) = layer.mixers
        assert isinstance(mixer, LatentAttention)
        assert mixer.query_heads == heads


def test_it_starts_where_the_longest_sequence_fits_to_the_byte() -> None:
    """Blocks of 16 tokens of 28 layers of 4 KV heads of 128 in 16 bits; one block is vLLM's own."""
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    found = start(spec, find_gpu("H100"), ServeSettings(8192))
    block = 16 * 28 * 4 * (128 + 128) * 2
    assert found.pool.block_bytes == block
    needed = found.pool.blocks_of(8192) * block
    assert needed // block in (512, 513)
    for low, high, answers in (
        (needed, needed, (True, True)),
        (needed - 1, needed, (False, True)),
        (needed - 1, needed - 1, (False, False)),
    ):
        tried = replace(found, cache=Interval(needed, low, high))
        assert (tried.fits, tried.may_fit) == answers


def test_the_budget_that_is_named_is_the_least_of_all_layouts() -> None:
    """Four cards may share a model in several ways, of which the one that needs least is named."""
    asked: dict[str, Any] = {
        "engine": "vllm", "gpu": "4xH100", "context": "8k", "users": 4, "offline": True,
    }  # fmt: skip
    model = "meta-llama/Llama-3.1-70B-Instruct"
    with pytest.raises(NothingFits) as caught:
        kvpareto.plan(model, budget="40GB", **asked)
    needed = int(str(caught.value.details["needed_bytes"]))
    assert kvpareto.plan(model, budget=needed, **asked)["fits"]
    with pytest.raises(NothingFits):
        kvpareto.plan(model, budget=int(0.99 * needed), **asked)


def test_what_a_configuration_needs_is_the_least_of_all_layouts() -> None:
    spec, config = load_model("Qwen/Qwen3-8B", offline=True), Configuration.parse("w16a16-k16v16")
    cards = (find_gpu("H100"),) * 2
    machine = Machine(cards, tuple(card.memory_bytes for card in cards), None)
    work = Workload(8192, 256, batch=4)
    sizes = [one.needed for one in candidates(spec, config, work, machine)]
    assert len(set(sizes)) > 1
    assert VLLM.needed(spec, config, work, machine) == min(sizes)
