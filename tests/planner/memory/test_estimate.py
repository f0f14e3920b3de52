"""Memory estimates against numbers derived by hand, and laws that hold for every engine."""

from dataclasses import replace

import pytest

from kvpareto.planner.engine import Engine
from kvpareto.planner.engines import all_engines
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.engines.transformers_eager import TRANSFORMERS_EAGER
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency import predict as latency
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory import overhead
from kvpareto.planner.memory.activation.cache import stored_after, stored_before
from kvpareto.planner.memory.activation.forward_step import ForwardStep, decode, prefill
from kvpareto.planner.memory.activation.live_tensors import LiveTensors
from kvpareto.planner.memory.activation.workspace import merging_bytes, staging_bytes, tile_splits
from kvpareto.planner.memory.estimate import MemoryEstimate, estimate
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.memory.weights import weight_bytes
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.workload import Workload

PLAIN = Configuration()
LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
PHI = load_model("microsoft/Phi-3-mini-4k-instruct", offline=True)
H200 = find_gpu("H200")
OF_ONE_SEQUENCE = [engine for engine in all_engines() if not engine.serves]
"""Servers fill a card: test_vllm_plans.py, test_servers.py."""


def of(
    spec: ModelSpec, text: str, workload: Workload, engine: Engine = TRANSFORMERS
) -> MemoryEstimate:
    return estimate(spec, Configuration.parse(text), workload, engine, H200)


def test_liveness_keeps_the_high_water_mark() -> None:
    live = LiveTensors()
    first = live.take(1000)
    assert first == 1024
    live.touch(512)
    live.drop(first)
    live.take(1)
    assert (live.nbytes, live.peak) == (512, 1536)


def test_terms_range_over_all_readings_of_a_model() -> None:
    one = of(LLAMA, "w16a16-k16v16", Workload(1024, 0))
    more = replace(one, weights=one.weights + 5, kv=one.kv - 7)
    less = replace(one, weights=one.weights - 3)
    read = replace(one, ends=(more, less))
    assert one.range_of("weights") == (one.weights, one.weights)
    assert read.range_of("weights") == (one.weights - 3, one.weights + 5)
    assert read.range_of("kv") == (one.kv - 7, one.kv)


@pytest.mark.parametrize("chunk", [64, 128, 1024, 4096])
def test_rows_in_8_bits_lie_beside_those_in_16(chunk: int) -> None:
    """phi-4's peak is its FFN's second product: rows of 17,920 bytes, and a float32 scale each. Up
    to 64 rows are multiplied in 16 bits."""
    spec = load_model("microsoft/phi-4", offline=True)
    sixteen, eight = (
        of(spec, f"{weights}-k16v16+pc{chunk}", Workload(8192, 64), KVPARETO).activation
        for weights in ("w4a16", "w4a8")
    )
    assert eight - sixteen == (chunk * (17_920 + 4) if chunk > 64 else 0)


def test_prefill_of_llama_by_hand() -> None:
    """One shot, T tokens: at the last layer's MLP there are alive, in bf16, the embeddings, the
    layer's input, the residual stream and its norm (4 x 4096 wide), gate's activation, up and
    their product (3 x 14336), cosines and sines (2 x 128), all layers' keys and values, and
    8 bytes a token twice for ids and positions."""
    tokens = 10_240
    by_hand = tokens * (2 * (4 * 4096 + 3 * 14336 + 2 * 128) + 32 * 2 * 8 * 128 * 2 + 2 * 8)
    live = TRANSFORMERS.activation(LLAMA, PLAIN, Workload(tokens, 0))
    assert live.prefill_peak == by_hand
    assert live.resident == tokens * (32 * 2 * 8 * 128 * 2 + 8)


def test_eager_scores_of_llama_by_hand() -> None:
    """Eager attention holds its masked scores in bf16, a float32 copy and their softmax."""
    tokens = 4096
    live = TRANSFORMERS_EAGER.activation(LLAMA, PLAIN, Workload(tokens, 0))
    scores = 32 * tokens * tokens * (2 + 4 + 4)
    repeated = 2 * 32 * 128 * tokens * 2
    rest = live.prefill_peak - scores - repeated
    cache = 32 * 2 * 8 * 128 * 2 * tokens
    assert cache < rest < cache + tokens * (2 * 6 * 4096 + 4 * 4096)


def test_a_later_chunk_pays_for_its_mask() -> None:
    """Keys and values repeated for 32 heads, and the mask as booleans and in bf16."""
    context, chunk = 32_768, 1024
    live = TRANSFORMERS.activation(LLAMA, Configuration(chunk=chunk), Workload(context, 0))
    above_cache = live.prefill_peak - live.resident
    mask = chunk * context * (1 + 2)
    repeated = 2 * 32 * 128 * 2 * context
    assert mask + repeated < above_cache < (mask + repeated) * 1.15


def test_sliding_layers_keep_the_whole_prompt_after_one_shot() -> None:
    """Phi-3-mini: 32 layers of 32 heads x 96 channels, a window of 2,047 tokens."""
    row = 32 * 32 * 96 * 2 * 2  # bytes a token of all layers
    one_shot = of(PHI, "w16a16-k16v16", Workload(49_152, 0))
    chunked = of(PHI, "w16a16-k16v16+pc2048", Workload(49_152, 0))
    held = {e: e.allocated_resident - e.weights - e.kv for e in (one_shot, chunked)}
    assert held[one_shot] == pytest.approx(row * (49_152 - 2046), rel=0.01)
    assert held[one_shot] == pytest.approx(18.5e9, rel=0.01)  # seen on an H200
    assert held[chunked] == pytest.approx(row * 2048, rel=0.05)
    assert held[chunked] == pytest.approx(0.8e9, rel=0.05)  # seen on an H200


def test_storage_of_a_window() -> None:
    like = ForwardStep(batch=1, new=1, past=0, previous=0, element=2, hidden=64)
    first, last = list(prefill(like, 2500, 1000))
    assert (first.past, first.new, last.past, last.new) == (1000, 1000, 2000, 500)
    assert stored_after(100, last) == 99 + 500
    step = next(iter(decode(like, Workload(2500, 3), 1000)))
    assert stored_before(100, step) == 99 + 500
    assert stored_after(100, step) == 100
    assert stored_after(None, step) == 2501


@pytest.mark.parametrize("engine", OF_ONE_SEQUENCE, ids=str)
@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-30B-A3B", "google/gemma-3-4b-it", "deepseek-ai/DeepSeek-V2-Lite-Chat"]
)
@pytest.mark.parametrize("output", [0, 1, 700])
def test_terms_add_up(name: str, engine: Engine, output: int) -> None:
    spec, workload = load_model(name, offline=True), Workload(3000, output, batch=2)
    e = of(spec, "w16a16-k16v16+pc512", workload, engine)
    assert e.total == e.weights + e.kv + e.activation + e.overhead
    assert e.paper_total == e.weights + e.kv + e.activation
    assert e.weights == weight_bytes(spec, 16).total
    assert e.kv == kv_bytes(spec, Configuration(chunk=512), workload, engine).total
    assert e.total_low <= e.total <= e.total_high
    assert e.activation >= 0
    assert e.weights < e.allocated_resident <= e.allocated_peak < e.total


@pytest.mark.parametrize("engine", OF_ONE_SEQUENCE, ids=str)
def test_more_tokens_never_take_less(engine: Engine) -> None:
    peaks = [
        engine.activation(LLAMA, Configuration(chunk=512), Workload(t, 8)).prefill_peak
        for t in range(300, 6000, 137)
    ]
    assert peaks == sorted(peaks)


def test_chunks_bound_what_kvpareto_holds() -> None:
    """Beyond the cache, memory follows the chunk, not the context."""
    small, large = (
        of(LLAMA, "w4a16-k4v4-g64+pc1024", Workload(t, 64), KVPARETO).activation
        for t in (32_768, 131_072)
    )
    assert large - small < 8 * (131_072 - 32_768) + 2**20  # prompt ids, and rounding
    by_hand = (
        2 * 4096 * 14_336  # one matrix in 16 bits
        + staging_bytes(8, 128, 128, 131_136, 1024)
        + merging_bytes(32, 128, 1024)
        + 1024 * 2 * (4 * 4096 + 4096 + 3 * 14_336)  # the MLP; attention's output keeps a name
        + 2 * 1024 * 4096 * 2  # places between the pieces of a captured chunk
    )
    assert large == pytest.approx(by_hand, rel=0.02)


def test_context_is_measured_or_said_to_be_estimated() -> None:
    plain, own = (e.context(H200) for e in (TRANSFORMERS, KVPARETO))
    assert plain.low == 552_402_944  # before a library is loaded
    assert plain.expected == 728_563_712  # products and attention done once
    # From the first run of one process to the last of a hundred in one.
    assert own.low < 801_964_032 < own.expected < 869_072_896 < own.high
    assert overhead.context_provenance(H200) == "measured"
    unknown = KVPARETO.context(find_gpu("RTX 4090"))
    assert unknown.low < unknown.expected < unknown.high
    assert overhead.context_provenance(None) == "estimated"


@pytest.mark.parametrize(
    ("gpu", "expected"), [("H200", 33_554_432), ("A100 80GB", 8_519_680), (None, 33_554_432)]
)
def test_workspace_by_gpu(gpu: str | None, expected: int) -> None:
    """One stream multiplies in either engine (tests/runtime/test_gpu.py)."""
    assert overhead.workspace(LLAMA, None if gpu is None else find_gpu(gpu)) == expected


def test_biased_products_take_one_workspace_more() -> None:
    qwen, gemma = (
        load_model(name, offline=True)
        for name in ("Qwen/Qwen2.5-3B-Instruct", "google/gemma-3-4b-it")
    )
    assert overhead.workspace(qwen, H200) == 33_554_432 + 2**20
    assert overhead.workspace(gemma, H200) == 33_554_432  # only its vision tower has biases


def test_recurrent_models_say_what_their_numbers_assume() -> None:
    hybrid = load_model("Qwen/Qwen3.5-35B-A3B", offline=True)
    notes = of(hybrid, "w16a16-k16v16", Workload(4096)).notes
    assert any("recurrent" in note for note in notes)
    assert not any("recurrent" in note for note in of(LLAMA, "w16a16-k16v16", Workload(9)).notes)


def test_few_queries_of_capped_scores_take_parts_of_the_cache_side_by_side() -> None:
    """Gemma 2's chunks go through the general kernel, which splits the keys to fill the device:
    measured on an H200 with 8k tokens: 143 MB of activations, 1.75 s to the first token."""
    spec = load_model("google/gemma-2-9b-it", offline=True)
    config = Configuration.parse("w8a16-k4v4-kc+protect{0,1,40,41}:k8v8+pc128")
    workload = Workload(8192 - 512, 512)
    found = estimate(spec, config, workload, KVPARETO, H200)
    assert found.activation == pytest.approx(143e6, rel=0.01)
    at_8k = latency.predict(spec, config, Workload(8192, 0), KVPARETO, H200)
    assert at_8k is not None
    assert at_8k.ttft_low < 1.75 < at_8k.ttft_high
    assert at_8k.ttft_s == pytest.approx(1.75, rel=0.12)
    assert tile_splits(128, 2, 8, 8704, 132) == 8  # 32 programs on 132 processors
    assert tile_splits(2048, 2, 8, 8704, 132) == 1
