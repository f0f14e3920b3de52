"""Keys that nobody here knew, in a plain config: what can carry size never leaves tight bounds."""

from typing import Any

import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.errors import BadConfig
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.search.evaluate import evaluate
from kvpareto.planner.workload import Workload
from tests.planner.models.unknown.newcomers import BF16, PLAIN, of

HARMLESS: dict[str, Any] = {
    "attention_bias": True,
    "attention_dropout": 0.1,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "final_logit_softcapping": 30.0,
    "initializer_range": 0.02,
    "pretraining_tp": 2,
    "rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 4096},
    "router_aux_loss_coef": 0.01,
    "sliding_window": None,
    "embedding_multiplier": 12,
    "num_experts": 0,
    "num_nextn_predict_layers": 0,
    "use_cla": False,
    "n_loops": 1,
    "lora_rank": None,
    "quantization_config": None,
    "transformers_version": "4.50.0",
}
SIZES: dict[str, Any] = {
    "moe_num_experts": 64,
    "n_experts": 64,
    "ffn_num_experts": 8,
    "num_local_experts": 8,
    "n_routed_experts": 128,
    "num_moe_experts": 16,
    "expert_count": 8,
    "moe_experts_total": 8,
    "use_moe": True,
    "expert_ffn_hidden_size": 1024,
    "moe_layer_interval": 2,
    "moe_hidden_size": 1024,
    "n_mixtures": 4,
    "kv_share": True,
    "cla_share_factor": 2,
    "use_cla": True,
    "num_kv_shared_layers": 8,
    "share_kv_every": 2,
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "attention_window_size": 2048,
    "local_attention_size": 512,
    "use_sliding_window": True,
    "attn_layer_period": 4,
    "attn_layer_indices": [3, 11, 19],
    "full_attention_interval": 4,
    "layer_types": ["linear_attention", "full_attention"] * 12,
    "block_types": ["recurrent", "attention"],
    "layers_kind": ["a", "b"],
    "hybrid_override_pattern": "M-M*" * 6,
    "ssm_state_size": 16,
    "mamba_d_state": 128,
    "lru_width": 2560,
    "linear_num_key_heads": 16,
    "conv_kernel": 4,
    "rwkv_head_size": 64,
    "lora_rank": 16,
    "kv_rank": 512,
    "latent_dim": 512,
    "adapter_size": 64,
    "n_loops": 4,
    "num_recurrent_passes": 4,
    "total_ut_steps": 4,
    "block_repeats": 2,
    "share_layers": True,
    "num_cycles": 3,
    "ngram_vocab": 1_000_000,
    "ngram_vocab_size_ratio": 78,
    "engram_size": 100_000,
    "hash_buckets": 10_000,
    "vocab_size_per_layer_input": 262_144,
    "hidden_size_per_layer_input": 256,
    "embedding_size": 512,
    "memory_slots": 128,
    "mem_tokens": 128,
    "vision_config": {"hidden_size": 1024},
    "visual": {"width": 1664, "layers": 48},
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "audio_encoder_layers": 32,
    "talker_config": {"hidden_size": 896},
    "llm_backbone": {"hidden_size": 896},
    "num_nextn_predict_layers": 1,
    "num_mtp_layers": 2,
    "second_intermediate_size": 11008,
    "intermediate_size_mlp": 16384,
    "ffn_dims": [4096] * 24,
    "num_heads_per_layer": [16] * 24,
    "num_global_key_value_heads": 8,
    "v_head_dim": 256,
    "attention_hidden_size": 4096,
    "ffn_dim_multiplier": 1.3,
    "compress_ratio": 4,
    "ffn_config": {"ffn_hidden_size": 8192},
    "moe": {"num_experts": 8},
    "cross_attention_layers": [3, 8],
    "residual_ffn_beside": True,
    "anything_at_all": 7,
}


def is_tight(spec: ModelSpec) -> bool:
    """Every number of the model lies within a hundredth."""
    low, high = spec.parameter_range
    return high <= 1.01 * low and len(spec.bounds) == 1 and len({k.total for k in of(spec)}) == 1


def test_a_plain_unknown_type_stays_tight() -> None:
    assert is_tight(read_model(PLAIN, "plain"))


@pytest.mark.parametrize("key", HARMLESS)
def test_settings_without_size_open_nothing(key: str) -> None:
    spec = read_model({**PLAIN, key: HARMLESS[key]}, "plain")
    assert is_tight(spec)


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("key", SIZES)
def test_a_key_that_can_carry_size_never_leaves_tight_bounds(key: str, nested: bool) -> None:
    config = {**PLAIN, key: SIZES[key]}
    if nested:
        del config["model_type"]
        config = {"model_type": "newcomer_chat", "llm_config": config}
    try:
        spec = read_model(config, "sized")
    except BadConfig as error:
        assert key in error.message  # noqa: PT017
        assert "not known" in error.message  # noqa: PT017
        assert "published config" not in error.hint  # noqa: PT017
        return
    assert not is_tight(spec)
    plain = read_model(PLAIN, "plain")
    low, high = spec.parameter_range
    assert low <= plain.parameters or key in ("moe_num_experts", *EXPERTS)
    assert high >= plain.parameters
    if nested:
        assert high >= plain.parameters + 6_500_000_000


EXPERTS = (
    "n_experts",
    "ffn_num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_moe_experts",
)


@pytest.mark.parametrize("key", SIZES)
def test_a_plan_never_fits_from_the_low_end(key: str) -> None:
    """What is recommended fits by the largest reading, and the table agrees with the estimate."""
    try:
        spec = read_model({**PLAIN, key: SIZES[key]}, "sized")
    except BadConfig:
        return
    workload = Workload(4096, 64)
    asked = spec, BF16, workload, KVPARETO, None
    found = memory.estimate(*asked)
    largest = max(memory.estimate(end, *asked[1:]).total_high for end in (spec, *spec.ends))
    assert found.total_high >= largest - 1
    table = evaluate(spec, workload, KVPARETO, None)
    first = table.points_at([0])[0].memory
    again = memory.estimate(spec, table.space.configuration(0), workload, KVPARETO, None)
    assert (first.total_low, first.total_high) == (again.total_low, again.total_high)
    assert int(table.points.memory[0]) == again.total_high
