"""Plans for vLLM: does it start, for whom, with which flags, on one card and on several."""

from typing import Any

import pytest

from kvpareto import api
from kvpareto.planner.engines.vllm import Vllm
from kvpareto.planner.engines.vllm.layouts import layouts
from kvpareto.planner.engines.vllm.rank import rank_spec, stage_layers, tensor_obstacle
from kvpareto.planner.engines.vllm.rank_weights import rank_weights
from kvpareto.planner.engines.vllm.rules import (
    batch_defaults,
)
from kvpareto.planner.engines.vllm.settings import ServeSettings
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.spec import Attention, DenseFFN
from kvpareto.planner.search.enumerate import enumerate_space
from kvpareto.planner.serving import Parallel
from kvpareto.planner.workload import Workload
from tests.planner.engines.vllm.vllm_plan import LLAMA8, LLAMA70, QWEN8, card, plan

GIB = 2**30


def test_the_sum_of_a_card_is_the_engines_own() -> None:
    found = plan(QWEN8, gpu="H100", users=16, context="16k")
    one = card(found)
    parts = one["weights"] + one["activation"] + one["other"] + one["graphs"] + one["cache"]
    assert parts == one["requested"] <= 0.97 * one["memory"]
    beside = one["context_high"] + one["graphs_beside_high"]
    assert one["requested"] + beside <= one["memory"]
    served = found["recommended"]["serving"]
    assert served["starts"]
    # A sequence of 16,896 tokens in 36 layers of 8 heads, K and V of 128 channels, two bytes each.
    blocks = served["cache_tokens_low"] // 16
    assert blocks == one["cache_low"] // (16 * 36 * 8 * 256 * 2)
    assert served["sequences_at_once"] == (blocks - 1) // (16896 // 16)


def test_every_flag_is_a_field_and_the_command_says_them() -> None:
    served = plan(QWEN8, gpu="H100", users=16, context="16k")["recommended"]["serving"]
    flags = served["flags"]
    assert flags["model"] == QWEN8
    assert (flags["max_model_len"], flags["max_num_seqs"]) == (16896, 16)
    for name, value in flags.items():
        if name != "model":
            assert f"--{name.replace('_', '-')} {value}" in served["command"]
    assert served["command"].startswith("vllm serve Qwen/Qwen3-8B ")


def test_a_distribution_is_planned_for_its_mean_and_says_the_worst() -> None:
    found = plan(QWEN8, gpu="4090", users=8, context="2k,16k:0.9,0.1")
    served = found["recommended"]["serving"]
    assert served["max_model_len"] == 16384 + 512
    assert served["sequences_at_once_if_all_are_longest"] < served["sequences_at_once"]
    assert served["sequences_at_once"] >= 8
    assert found["lengths"] == [{"tokens": 2048, "part": 0.9}, {"tokens": 16384, "part": 0.1}]
    low = served["sequences_at_once_if_all_are_longest"]
    assert any(str(low) in note for note in found["warnings"]) == (low < 8)


def test_two_cards_halve_what_can_be_cut() -> None:
    """Llama 3.1 70B by hand: 80 layers, 64 heads of 128, 8 KV heads, FFN 28,672, width 8,192."""
    spec = load_model(LLAMA70, offline=True)
    layer = 8192 * (64 * 128 * 2 + 2 * 8 * 128 + 3 * 28672)
    embedding = 128256 * 8192
    for size in (1, 2, 8):
        norms = (2 * 80 + 1) * 8192
        by_hand = 2 * ((80 * layer + 2 * embedding) // size + norms)
        assert rank_weights(spec, ServeSettings(4096, tensor_parallel=size)).stages == (by_hand,)
    # 16 ranks share 8 KV heads: each has a whole one.
    kv = 8192 * 2 * 8 * 128
    by_hand = 2 * (80 * ((layer - kv) // 16 + kv // 8) + 2 * embedding // 16 + norms)
    assert rank_weights(spec, ServeSettings(4096, tensor_parallel=16)).stages == (by_hand,)
    rank = rank_spec(spec, ServeSettings(4096, tensor_parallel=16))
    (mixer,) = (m for m, _ in rank.mixer_counts)
    assert isinstance(mixer, Attention)
    assert (mixer.query_heads, mixer.kv_heads) == (4, 1)
    assert isinstance(rank.layers[0].ffn, DenseFFN)
    assert rank.layers[0].ffn.width == 28672 // 16


def test_a_vocabulary_is_padded_before_it_is_cut() -> None:
    spec = load_model("microsoft/phi-4", offline=True)  # 100,352 tokens, a multiple of 64
    assert tensor_obstacle(spec, 2) is None
    assert "attention heads" in (tensor_obstacle(spec, 3) or "")


def test_a_latent_is_copied_to_every_rank() -> None:
    spec = load_model("deepseek-ai/DeepSeek-V3", offline=True)
    found = plan("deepseek-ai/DeepSeek-V3", gpu="8xH200", users=8, context="8k")
    served = found["recommended"]["serving"]
    assert served["parallel"] == {"tensor": 8, "pipeline": 1, "data": 1, "experts": False}
    per_token = len(spec.layers) * (512 + 64) * 2
    assert found["recommended"]["kv_bytes_per_token"] == 8 * 8 * per_token  # ranks x users


def test_stages_have_whole_layers_and_the_rest_goes_before_the_last() -> None:
    assert [len(one) for one in stage_layers(28, 3)] == [9, 10, 9]
    assert [len(one) for one in stage_layers(80, 8)] == [10] * 8
    assert [len(one) for one in stage_layers(5, 2)] == [3, 2]
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    stages = rank_weights(spec, ServeSettings(4096, pipeline_parallel=3)).stages
    whole = rank_weights(spec, ServeSettings(4096)).stages[0]
    assert sum(stages) == pytest.approx(whole, rel=1e-4)


def test_three_cards_become_stages_and_an_odd_size_is_refused() -> None:
    found = plan("Qwen/Qwen2.5-7B-Instruct", gpu="3xL4", context="4k")
    assert found["recommended"]["serving"]["parallel"]["tensor"] == 1
    with pytest.raises(BadInput, match="32 attention heads are no multiple of 3") as caught:
        plan(QWEN8, gpu="3xL4", parallel="tp3")
    assert caught.value.hint.startswith("sizes that do: 1, 2, 4, 8")
    with pytest.raises(BadInput, match="fills 4 cards"):
        plan(QWEN8, gpu="2xL4", parallel="tp4")


def test_a_group_of_packed_weights_is_not_cut() -> None:
    """What vLLM's users ran into: 192 channels of an expert are no multiple of 128."""
    fp8 = load_model("Qwen/Qwen3-30B-A3B-FP8", offline=True)
    with pytest.raises(BadInput, match="192 of 768 channels"):
        rank_weights(fp8, ServeSettings(4096, tensor_parallel=4))
    found = plan("Qwen/Qwen3-30B-A3B-FP8", gpu="4xL40S", users=4, context="4k")
    parallel = found["recommended"]["serving"]["parallel"]
    assert parallel["tensor"] != 4 or parallel["experts"]


def test_defaults_of_a_server() -> None:
    assert batch_defaults(find_gpu("H200")) == (8192, 1024)
    assert batch_defaults(find_gpu("A100 80GB")) == (2048, 256)
    assert batch_defaults(find_gpu("4090")) == (2048, 256)


def test_a_smaller_budget_is_a_smaller_utilization() -> None:
    half = card(plan(QWEN8, gpu="H200", budget="40GB", users=2, context="8k"))
    assert half["requested"] + half["context_high"] + half["graphs_beside_high"] <= 40 * 10**9
    assert half["requested"] < 0.3 * half["memory"]


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(NothingFits) as caught:
        plan(LLAMA70, gpu="4090", context="4k")
    assert caught.value.details["needed_bytes"] > 24 * 10**9
    with pytest.raises(BadInput, match="refuses --max-model-len") as refused:
        plan(QWEN8, gpu="H200", context="64k")
    assert "--context 40448 or less: that is the prompt" in refused.value.hint


def test_a_checkpoint_that_is_quantized_runs_as_it_is() -> None:
    found = plan("openai/gpt-oss-20b", gpu="H200", users=4, context="8k")
    assert found["recommended"]["config"].startswith("w4a16-")
    assert "quantization" not in found["recommended"]["serving"]["flags"]
    with pytest.raises(BadInput, match="stored in mxfp4"):
        api.estimate("openai/gpt-oss-20b", "wawq-k16v16", engine="vllm", gpu="H200", offline=True)


def test_weights_made_at_the_start_and_weights_to_get() -> None:
    def served(config: str) -> dict[str, Any]:
        words: dict[str, Any] = {"engine": "vllm", "gpu": "H200", "offline": True}
        return dict(api.estimate(LLAMA8, config, **words))["serving"]

    assert served("wfp8-k16v16")["flags"]["quantization"] == "fp8"
    assert served("wfp8-k16v16")["checkpoint"] is None
    awq = served("wawq-kfp8vfp8")
    assert awq["flags"]["model"] == "./Llama-3.1-8B-Instruct-AWQ"
    assert "AWQ" in awq["checkpoint"]
    assert awq["flags"]["kv_cache_dtype"] == "fp8"


def test_fp8_made_at_the_start_comes_before_a_checkpoint_of_four_bits() -> None:
    """Llama 3.1 70B on two H100: weights and cache in fp8 are two flags, keep more, are faster."""
    best = plan(LLAMA70, gpu="2xH100", users=16, context="16k")
    assert best["recommended"]["config"].startswith("wfp8-kfp8vfp8")


def test_how_far_a_servers_formats_are_from_what_people_run() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    workload = Workload(4096, 512, 1)
    space = enumerate_space(spec, workload, Vllm((find_gpu("H100"),)), ((),))
    weights = dict(zip(space.weight_formats, space.complexity[:, 0, 0].tolist(), strict=True))
    # a chunk is one; halvings of bits are two each; a checkpoint of its own two more
    assert weights == {"": 1, "fp8": 3, "awq": 7, "gptq4": 7, "gptq8": 5, "nvfp4": 7}
    caches = [name for name, _ in space.kv_formats]
    assert dict(zip(caches, (space.complexity[0, :, 0] - 1).tolist(), strict=True)) == {
        "": 0,
        "fp8": 2,
        "fp8_per_token_head": 4,
        "int8_per_token_head": 4,
        "int4_per_token_head": 6,
    }


def test_layouts_fill_the_cards() -> None:
    dense, experts = load_model(QWEN8, offline=True), load_model("Qwen/Qwen3-30B-A3B", offline=True)
    assert layouts(dense, 4, None)[0] == Parallel(4, 1, 1)
    assert all(one.cards == 4 for one in layouts(dense, 4, None))
    assert not any(one.experts for one in layouts(dense, 4, None))
    assert Parallel(1, 1, 4, experts=True) in layouts(experts, 4, None)
    assert str(Parallel.parse("tp2, dp=4 ,ep")) == "tp2,dp4,ep"


def test_experts_are_cut_or_spread() -> None:
    """Qwen3-30B-A3B by hand: 48 layers of 128 experts of 768, width 2,048, 32 heads of 128, 4 KV
    heads, a vocabulary of 151,936."""
    spec = load_model("Qwen/Qwen3-30B-A3B", offline=True)
    experts = 128 * 3 * 768 * 2048
    attention, router = 2048 * 128 * (2 * 32 + 2 * 4), 128 * 2048
    norms = 48 * (2 * 2048 + 2 * 128) + 2048
    embedding = 151936 * 2048
    cut = ServeSettings(4096, tensor_parallel=4)
    whole_layers = 48 * ((experts + attention) // 4 + router)
    assert rank_weights(spec, cut).stages == (2 * (whole_layers + norms + 2 * embedding // 4),)
    # Two replicas of two ranks: each rank has 32 experts whole, and half of the attention.
    spread = ServeSettings(4096, tensor_parallel=2, data_parallel=2, expert_parallel=True)
    layers = 48 * (experts // 4 + attention // 2 + router)
    assert rank_weights(spec, spread).stages == (2 * (layers + norms + 2 * embedding // 2),)
    found = plan("Qwen/Qwen3-30B-A3B", gpu="4xH100", users=8, context="4k", parallel="tp2,dp2,ep")
    served = found["recommended"]["serving"]
    assert served["flags"]["enable_expert_parallel"] is True
    assert "--enable-expert-parallel" in served["command"]
    assert served["flags"]["max_num_seqs"] == 4  # of eight users each replica has a half


def test_graphs_are_given_up_last() -> None:
    """Where both fit, the plan captures CUDA graphs."""
    found = plan(QWEN8, gpu="4090", users=4, context="8k")
    assert "enforce_eager" not in found["recommended"]["serving"]["flags"]
    tight = api.estimate(
        QWEN8, "w16a16-k16v16+pc2048", engine="vllm", gpu="4090", users=4, context="8k",
        offline=True,
    )  # fmt: skip
    assert tight["serving"]["cards"][0]["requested"] < tight["serving"]["cards"][0]["memory"]
