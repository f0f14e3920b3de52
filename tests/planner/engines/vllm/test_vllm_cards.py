"""What a card lets vLLM do: caches and weights that it has kernels for, cards that differ."""

import pytest

from kvpareto.planner.engines.vllm.rules import (
    cache_dtypes,
    cache_obstacle,
    weight_obstacle,
)
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.hardware.compute_capability import compute_capability
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpus import list_gpus
from kvpareto.planner.load_model import load_model
from tests.planner.engines.vllm.vllm_plan import LLAMA8, QWEN8, plan


def test_cards_that_differ_are_as_good_as_the_smallest() -> None:
    mixed = plan(QWEN8, gpu="3090+3060", users=2, context="8k")["recommended"]["serving"]
    alike = plan(QWEN8, gpu="2x3060", users=2, context="8k")["recommended"]["serving"]
    assert mixed["cards"][0]["memory"] > mixed["cards"][1]["memory"]
    assert mixed["cache_tokens_low"] == pytest.approx(alike["cache_tokens_low"], rel=0.05)


@pytest.mark.parametrize(
    ("gpu", "model", "dtype", "says"),
    [
        ("H200", LLAMA8, "nvfp4", "cards of compute capability 10.x"),
        ("A100 80GB", LLAMA8, "fp8_per_token_head", "needs compute capability 8.9"),
        ("3090", "openai/gpt-oss-20b", "fp8", "sinks"),
        ("3090", "microsoft/Phi-3-mini-4k-instruct", "fp8", "heads of 96"),
        ("H200", "deepseek-ai/DeepSeek-V3", "int8_per_token_head", "a latent"),
        ("A100 80GB", "deepseek-ai/DeepSeek-V3", "fp8", "latent attention"),
        ("T4", LLAMA8, "fp8", "needs compute capability 8.0"),
    ],
)
def test_caches_that_a_card_does_not_have(gpu: str, model: str, dtype: str, says: str) -> None:
    obstacle = cache_obstacle(load_model(model, offline=True), dtype, find_gpu(gpu))
    assert obstacle is not None
    assert says in obstacle


def test_caches_that_a_card_has() -> None:
    llama = load_model(LLAMA8, offline=True)
    per_head = ["fp8_per_token_head", "int8_per_token_head", "int4_per_token_head"]
    assert list(cache_dtypes(llama, find_gpu("H200"))) == ["auto", "fp8", *per_head]
    assert list(cache_dtypes(llama, find_gpu("A100 80GB"))) == ["auto", "fp8", *per_head[1:]]
    assert list(cache_dtypes(llama, find_gpu("B200")))[-1] == "nvfp4"
    assert weight_obstacle("mxfp4", find_gpu("T4")) is not None
    assert weight_obstacle("awq", find_gpu("T4")) is None


def test_cards_without_kernels_are_refused_by_name() -> None:
    for gpu, says in (("V100 SXM2 32GB", "has no kernels"), ("MI300X", "is not planned")):
        with pytest.raises(BadInput, match=says) as caught:
            plan(QWEN8, gpu=gpu)
        assert "llama.cpp" in caught.value.hint
    for gpu in list_gpus():
        assert (compute_capability(gpu) is None) == (gpu.vendor != "nvidia")


def test_a_checkpoint_that_names_an_fp8_cache_keeps_16_bits_only_if_asked() -> None:
    """vLLM's `auto` takes the checkpoint's own cache format."""
    name = "nvidia/Llama-3.1-70B-Instruct-FP8"
    assert load_model(name, offline=True).quantization is not None
    served = plan(name, gpu="2xH200", users=2, context="4k")["recommended"]
    expected = "bfloat16" if "-k16v16" in served["config"] else "fp8"
    assert served["serving"]["flags"]["kv_cache_dtype"] == expected


def test_cards_and_dtypes_that_a_server_does_not_take() -> None:
    with pytest.raises(BadInput, match=r"mxfp4 needs compute capability 8\.0") as caught:
        plan("openai/gpt-oss-20b", gpu="T4")
    assert caught.value.hint == "a newer GPU, or a checkpoint of the model in another format"
    with pytest.raises(BadInput, match="float32 was asked"):
        plan(QWEN8, gpu="H200", dtype="float32")


@pytest.mark.parametrize(
    ("gpu", "measured"), [("H200", True), ("2xH200", True), ("4xH200", False), ("4090", False)]
)
def test_constants_that_no_run_stands_behind_are_called_estimates(gpu: str, measured: bool) -> None:
    found = plan(QWEN8, gpu=gpu, context="4k")
    assert found["recommended"]["serving"]["measured"] is measured
    assert any("an estimate" in note and "H200" in note for note in found["warnings"]) == (
        gpu == "4090"
    )
    assert any("buffers between cards" in note for note in found["warnings"]) == (gpu == "4xH200")


def test_a_utilization_is_no_less_than_what_the_cache_needs() -> None:
    """What is wanted of the card, 0.9563 of it, is typed as 0.957: 0.956 would hold 15 users."""
    found = plan("openai/gpt-oss-120b", gpu="H100", users=16)["recommended"]["serving"]
    assert found["flags"]["gpu_memory_utilization"] == 0.957
    assert found["sequences_at_once"] >= 16


def test_what_a_card_lacks_is_what_it_lacks() -> None:
    """No byte more than the budget, but what the most that vLLM takes of a card falls short of."""
    with pytest.raises(NothingFits) as caught:
        plan("openai/gpt-oss-120b", gpu="H100", users=20)
    asked = find_gpu("H100").memory_bytes
    lacks = caught.value.details["missing_bytes"]
    with pytest.raises(NothingFits) as caught:
        plan("openai/gpt-oss-120b", gpu="H100", users=21)
    # A user more is 18 full layers of K and V, 8 heads of 64, in 8 bits, beside 18 short windows.
    user = 33280 * 18 * 2 * 8 * 64
    more = caught.value.details["missing_bytes"] - lacks
    assert 0 < lacks < 0.01 * asked
    assert user / 0.97 <= more <= 1.2 * user / 0.97
