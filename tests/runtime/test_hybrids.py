"""Models with recurrent layers: transformers' states, our packed attention, the planner's bytes."""

import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.spec import STATEFUL_RUN
from kvpareto.planner.workload import Workload
from kvpareto.runtime.cache.kv_cache import PackedCache
from tests.support.models.hybrid_models import (
    check_cache_bytes,
    check_equals_transformers,
    check_joining,
    hybrid,
)
from tests.support.runtime_builders import session

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("kind", STATEFUL_RUN)
@pytest.mark.parametrize("chunk", ["", "+pc5"], ids=["one-shot", "chunk-5"])
def test_sixteen_bits_equal_transformers(kind: str, chunk: str) -> None:
    check_equals_transformers(hybrid(kind), "w16a16-k16v16" + chunk)


@pytest.mark.parametrize("kind", STATEFUL_RUN)
def test_the_cache_takes_what_the_planner_counts(kind: str) -> None:
    check_cache_bytes(hybrid(kind))


@pytest.mark.parametrize("kind", STATEFUL_RUN)
def test_sequences_join_and_leave(kind: str) -> None:
    check_joining(hybrid(kind))


def test_padding_that_a_state_would_read_is_refused() -> None:
    model = hybrid("granitemoehybrid")
    with (
        session(model, "w16a16-k16v16", tokens=20, batch=2) as run,
        pytest.raises(BadInput, match="would read the padding"),
    ):
        run.generate([[5, 6, 7], [8]], 2)


@pytest.mark.parametrize("text", ["k16v16", "k8v8-g64+pc512", "k4v4-g32+res128+sink4+pc1024"])
@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        "Qwen/Qwen3.5-27B",
        "deepseek-ai/DeepSeek-V2-Lite-Chat",
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    ],
)
def test_bytes_at_real_shapes(name: str, text: str) -> None:
    """Published models, two sequences of 20,000 tokens, allocated on the meta device."""
    spec, config = load_model(name, offline=True), Configuration.parse(f"w16a16-{text}")
    predicted = kv_bytes(spec, config, Workload(19_990, 10, 2), KVPARETO).total
    assert PackedCache(spec, config, tokens=20_000, batch=2, device="meta").nbytes == predicted
