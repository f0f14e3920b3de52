"""What people's servers said, answered by the planner: vLLM and SGLang reports with numbers."""

import pytest

from kvpareto import api
from kvpareto.planner.engines.sglang.pool import bytes_per_token
from kvpareto.planner.engines.vllm.block_pool import BlockPool
from kvpareto.planner.engines.vllm.layouts import layouts
from kvpareto.planner.engines.vllm.rank import rank_spec, tensor_obstacle
from kvpareto.planner.engines.vllm.rank_weights import rank_weights
from kvpareto.planner.engines.vllm.settings import ServeSettings
from kvpareto.planner.engines.vllm.start import rotary_bytes, start
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.serving import Parallel

GIB = 2**30

CODER = "Qwen/Qwen3-Coder-480B-A35B-Instruct"
LENGTHS = [
    # (report, model, cache, tensor parallel, asked length, GiB left, GiB it said are needed,
    #  the length that it named or None)
    ("vllm#34076", "Qwen/Qwen3-30B-A3B", "auto", 1, 262144, 3.18, 24.0, 34736),
    (
        "vllm recipes#12",
        CODER,
        "auto",
        1,
        262144,
        48.66,
        62.0,
        205728,
    ),
    (
        "vllm recipes#12",
        CODER,
        "auto",
        1,
        262144,
        55.65,
        62.0,
        235296,
    ),
    # The report names no model; weights of 29.09 GiB and this cache are Qwen3-30B-A3B's in FP8.
    ("vllm#25350", "Qwen/Qwen3-30B-A3B-FP8", "fp8", 1, 221000, 5.59, 10.12, 122080),
    ("vllm#13061", "Qwen/Qwen2.5-14B-Instruct", "auto", 2, 131072, 8.69, None, None),
    ("vllm#10517", "meta-llama/Llama-3.1-8B-Instruct", "auto", 1, 29000, 2.89, None, 23648),
    ("vllm#11230", "Qwen/Qwen2.5-72B-Instruct", "auto", 1, 8192, 0.39, None, 1280),
]
LLAMA8, QWEN7 = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct"
TOKENS = [
    # (report, model, cache, tensor parallel, length, GiB left, tokens that they hold)
    ("club-3090#612", "Qwen/Qwen3.6-35B-A3B", "fp8", 1, 131072, 5.98, 567978),
    # The report's Qwen3.8-27B has the layers of Qwen3.6-27B.
    ("talos-argocd-proxmox#1995", "Qwen/Qwen3.6-27B", "fp8", 2, 131072, 4.99, 302921),
    ("llm-d-planner#205", LLAMA8, "auto", 1, 16384, 58.11, 476016),
    ("llm-d-planner#205", LLAMA8, "fp8", 1, 8192, 58.11, 952032),
    ("llm-d-planner#205", QWEN7, "auto", 1, 8192, 58.53, 1096000),
    ("llm-d-planner#205", QWEN7, "fp8", 1, 8192, 58.53, 2192000),
    ("vllm#10517", LLAMA8, "auto", 1, 20000, 3.81, 1952 * 16),
]


@pytest.mark.parametrize("report", LENGTHS, ids=lambda r: f"{r[0]} {r[5]} GiB")
def test_a_length_that_was_refused(
    report: tuple[str, str, str, int, int, float, float | None, int | None],
) -> None:
    """The bytes left are rounded to 0.01 GiB in the logs, lengths to blocks."""
    _, model, dtype, tensor, asked, left, needs, named = report
    spec = load_model(model, offline=True)
    settings = ServeSettings(asked, dtype, tensor_parallel=tensor)
    pool = BlockPool.of(rank_spec(spec, settings), settings)
    needed = pool.blocks_of(asked) * pool.block_bytes
    assert needed > (left + 0.005) * GIB
    if needs is not None:
        assert needed / GIB == pytest.approx(needs, abs=0.006)
    if named is not None:
        low, high = (pool.longest(int((left + off) * GIB), 2**19) for off in (-0.005, 0.005))
        assert low <= named <= high + 15


@pytest.mark.parametrize("report", TOKENS, ids=lambda r: f"{r[0]} {r[1]} {r[2]}")
def test_tokens_of_the_bytes_left(report: tuple[str, str, str, int, int, float, int]) -> None:
    """Within what 0.01 GiB of the log leaves open; states of hybrids are kept twice where prefixes
    are cached, and in float32 in Qwen3.5 and later (blocks of 1,568 and 2,096 tokens)."""
    _, model, dtype, tensor, length, left, tokens = report
    settings = ServeSettings(length, dtype, tensor_parallel=tensor)
    pool = BlockPool.of(rank_spec(load_model(model, offline=True), settings), settings)
    low, high = (pool.tokens(int((left + off) * GIB)) for off in (-0.005, 0.005))
    assert low <= tokens <= high


def test_layers_with_heads_of_two_widths_have_pages_of_one_size() -> None:
    """tpu-inference#3220: Gemma 4 31B on four ranks, 16 and 32 tokens of 32,768 elements a page;
    kvcached#396 has the same rule for its 12B."""
    settings = ServeSettings(32768, tensor_parallel=4)
    spec = load_model("google/gemma-4-31b-it", offline=True)
    pool = BlockPool.of(rank_spec(spec, settings), settings)
    kinds = {(group.kind, group.block, group.page) for group in pool.groups}
    assert kinds == {("sliding", 16, 2 * 32768), ("full", 32, 2 * 32768)}
    assert len(pool.groups) == 6  # ten layers each


@pytest.mark.parametrize(
    ("dtype", "tokens"),
    [
        ("auto", 45408),
        ("fp8_per_token_head", 88752),
        ("int8_per_token_head", 88752),
        ("int4_per_token_head", 175440),
    ],
)
def test_blocks_of_a_hybrid_with_scales_a_token_and_head(dtype: str, tokens: int) -> None:
    """vllm#39074, Qwen3.5-35B-A3B on an RTX 5090: one size of the cache in four formats, 43 blocks
    each, as long as a state is large."""
    spec = load_model("Qwen/Qwen3.5-35B-A3B", offline=True)
    pool = BlockPool.of(spec, ServeSettings(4096, dtype))
    (block,) = {group.block for group in pool.groups if group.kind == "full"}
    assert tokens == 43 * block


def test_a_state_for_each_block_is_not_kept_unasked() -> None:
    """Nemotron-H and others would keep one where prefixes are cached, which is vLLM's default."""
    words = {"engine": "vllm", "gpu": "H100", "offline": True}
    model = "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"
    found = api.estimate(model, "w16a16-kfp8vfp8", context=8192, **words)
    assert found["serving"]["flags"]["no_enable_prefix_caching"] is True
    assert "--no-enable-prefix-caching" in found["serving"]["command"]
    other = api.estimate("Qwen/Qwen3.6-35B-A3B", "wfp8-kfp8vfp8", context=8192, **words)
    assert "prefix" not in other["serving"]["command"]


@pytest.mark.parametrize(
    ("report", "model", "tensor", "pipeline", "name", "gib"),
    [
        ("vllm#17469", "Qwen/Qwen3-30B-A3B", 4, 1, "", 14.2474),
        ("vllm#25350", "Qwen/Qwen3-30B-A3B-FP8", 1, 1, "", 29.09),
        ("vllm#10517", LLAMA8, 1, 1, "", 14.9888),
        ("llm-d-planner#205", LLAMA8, 2, 1, "", 7.51),
        ("llm-d-planner#205", LLAMA8, 4, 1, "", 3.77),
        ("llm-d-planner#205", LLAMA8, 1, 2, "", 7.51),
        ("llm-d-planner#205", LLAMA8, 1, 4, "", 4.26),
        ("llm-d-planner#205", LLAMA8, 1, 1, "fp8", 8.49),
        ("vllm#10511", "meta-llama/Meta-Llama-3-8B-Instruct", 1, 1, "", 14.96),
        ("vllm#10511", "meta-llama/Meta-Llama-3-8B-Instruct", 2, 1, "", 7.48),
    ],
)
def test_weights_that_a_rank_loaded(
    report: str, model: str, tensor: int, pipeline: int, name: str, gib: float
) -> None:
    spec = load_model(model, offline=True)
    settings = ServeSettings(
        4096, quantization=name, tensor_parallel=tensor, pipeline_parallel=pipeline
    )
    held = rank_weights(spec, settings).stages[0] + rotary_bytes(spec)
    assert held / GIB == pytest.approx(gib, rel=0.003), report


@pytest.mark.parametrize(
    ("report", "model", "gpu", "gib"),
    [
        # Marlin's layout, which 0.26.0 takes on every card but Hopper and data-centre Blackwell
        ("vllm#23278", "openai/gpt-oss-120b", "A100-80GB", 65.9651),
        ("a run of 0.26.0", "openai/gpt-oss-20b", "H200", 13990115328 / GIB),
    ],
)
def test_mxfp4_experts_are_padded_to_tiles(report: str, model: str, gpu: str, gib: float) -> None:
    spec = load_model(model, offline=True)
    found = start(spec, find_gpu(gpu), ServeSettings(8192))
    assert found.weights / GIB == pytest.approx(gib, rel=0.0015), report


def test_tokens_of_what_was_left_on_four_cards() -> None:
    """vllm#21348: 8.11 GiB on the card that prints, 178,880 tokens by the card that has least."""
    spec = load_model("Qwen/Qwen3-235B-A22B", offline=True)
    settings = ServeSettings(40960, tensor_parallel=4)
    pool = BlockPool.of(rank_spec(spec, settings), settings)
    assert pool.tokens(int(8.11 * GIB)) == pytest.approx(178880, rel=0.012)


@pytest.mark.parametrize(
    ("report", "model", "tensor", "tokens", "gib"),
    [
        ("vllm#21348", "Qwen/Qwen3-235B-A22B", 4, 367404, 2 * 8.23),
        ("sglang#18263", "Qwen/Qwen3-30B-A3B", 1, 1669816, 2 * 76.44),
    ],
)
def test_pools_that_sglang_allocated(
    report: str, model: str, tensor: int, tokens: int, gib: float
) -> None:
    spec = load_model(model, offline=True)
    rank = rank_spec(spec, ServeSettings(4096, tensor_parallel=tensor))
    assert tokens * bytes_per_token(rank, "auto") / GIB == pytest.approx(gib, abs=0.011), report


@pytest.mark.parametrize(
    ("report", "model", "size", "heads"),
    [
        ("gpustack#2259", "google/gemma-3-27b-it", 3, 32),
        ("vllm#11797", "Qwen/Qwen2-7B-Instruct", 8, 28),
        ("vllm#4232", "Qwen/Qwen2.5-32B-Instruct", 6, 40),
    ],
)
def test_sizes_that_do_not_divide_heads(report: str, model: str, size: int, heads: int) -> None:
    spec = load_model(model, offline=True)
    assert f"{heads} attention heads" in (tensor_obstacle(spec, size) or ""), report
    with pytest.raises(BadInput, match="does not divide"):
        layouts(spec, size, Parallel(size))
    assert layouts(spec, size, None)  # stages or replicas fill as many cards


def test_thirty_billion_in_fp8_on_a_card_of_32_gb() -> None:
    """vllm#41695: out of memory on an RTX 5090 with 16,384 tokens, whatever the utilization."""
    with pytest.raises(NothingFits):
        api.plan("Qwen/Qwen3-30B-A3B-FP8", gpu="5090", context=15872, engine="vllm", offline=True)


def test_a_32b_model_in_16_bits_on_two_cards_of_48_gb() -> None:
    """vllm#4429 asks whether two L40 hold such a model: with a short length they do."""
    words = {"engine": "vllm", "gpu": "2xL40", "offline": True}
    found = api.estimate("Qwen/Qwen2.5-32B-Instruct", "w16a16-k16v16", context=4096, **words)
    served = found["serving"]
    assert served["starts"]
    assert served["cache_tokens_low"] < 131072  # and no length of an older config's 128k
    with pytest.raises(NothingFits):
        api.plan("Qwen/Qwen2.5-32B-Instruct", users=8, context="32000", max_loss="0.1%", **words)
