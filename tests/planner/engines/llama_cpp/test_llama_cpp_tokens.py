"""What a further token takes in llama.cpp's caches, whose cells come 256 at a time, and what lies
with the head, by hand."""

import pytest

import kvpareto
from kvpareto.planner.engines.llama_cpp import LLAMA_CPP
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.gguf_weights import gguf_weight_bytes
from kvpareto.planner.workload import Workload

LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
GEMMA = load_model("google/gemma-3-4b-it", offline=True)
TOKEN = 32 * 2 * 8 * 128
"""Elements of a token: keys and values of 32 layers with 8 heads of 128."""


@pytest.mark.parametrize(
    ("keys", "values", "size"),
    [("f16", "f16", TOKEN * 2), ("q8_0", "q8_0", TOKEN // 32 * 34),
     ("q8_0", "q4_0", TOKEN // 64 * (34 + 18))],
)  # fmt: skip
@pytest.mark.parametrize(
    ("context", "output", "batch"),
    [(300, 20, 1), (2048, 512, 3), (236, 20, 1), (1, 1, 1), (8, 900, 1)],
)
def test_a_token_of_full_attention(
    keys: str, values: str, size: int, context: int, output: int, batch: int
) -> None:
    config, work = Configuration.named("F16", keys, values), Workload(context, output, batch)
    found = LLAMA_CPP.kv_bytes(LLAMA, config, work)
    cells = -(-work.tokens // 256) * 256
    assert found.total == batch * cells * size
    assert found.per_token == batch * size
    assert found.fixed == found.total - batch * work.tokens * size


def test_a_token_beyond_the_windows_is_kept_by_the_full_layers_alone() -> None:
    """Of 34 layers with 4 heads of 256 every sixth is full: five of them."""
    found = LLAMA_CPP.kv_bytes(GEMMA, Configuration.named("F16", "f16", "f16"), Workload(8000, 512))
    assert found.per_token == 5 * 2 * 4 * 256 * 2


@pytest.mark.parametrize(
    ("model", "head"),
    [("meta-llama/Llama-3.1-8B-Instruct", 0), ("meta-llama/Llama-3.2-1B-Instruct", 1)],
    ids=["untied", "tied"],
)
def test_the_token_table_lies_with_the_head_where_memory_is_one(model: str, head: int) -> None:
    """A Mac's GPU holds the whole file; a card leaves the table to the host, unless it is the head
    too. The factors of long contexts stay on the host."""
    whole = gguf_weight_bytes(load_model(model, offline=True), "Q8_0")
    rest = whole.total - whole.embedding - whole.other

    def held(gpu: str) -> int:
        config = "wQ8_0-kf16vf16+pc512"
        words: dict[str, str] = {"engine": "llama.cpp", "gpu": gpu, "context": "2k"}
        found = kvpareto.estimate(model, config, offline=True, **words)  # type: ignore[typeddict-item]
        device: int = found["placement"]["device"]["weights"]
        return device

    assert held("M3 Max 64GB") - whole.embedding - rest in (0, whole.other)
    assert held("4090") - head * whole.embedding - rest in (0, whole.other)
