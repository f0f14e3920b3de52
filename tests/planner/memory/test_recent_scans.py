"""Recurrent layers since transformers 5.20, held to it on the meta device."""

from typing import Any

import pytest
import transformers

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.activation.forward_step import Attend
from kvpareto.planner.memory.activation.peak import peak
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.workload import Workload
from tests.support.oracle.transformers_memory import build, measure

OLD = tuple(int(x) for x in transformers.__version__.split(".")[:2]) < (5, 20)
pytestmark = pytest.mark.skipif(OLD, reason="transformers before 5.20 had other scans")

SHARED = {"num_hidden_layers": 3, "vocab_size": 20000, "pad_token_id": 0}
GRANITE = SHARED | {
    "layer_types": ["mamba", "attention", "mamba"], "hidden_size": 1536,
    "num_attention_heads": 12, "num_key_value_heads": 4, "intermediate_size": 512,
    "shared_intermediate_size": 1024, "num_local_experts": 8, "num_experts_per_tok": 2,
    "mamba_n_heads": 48, "mamba_d_head": 64, "mamba_d_state": 128,
}  # fmt: skip
SHAPES: dict[str, tuple[dict[str, Any], float]] = {
    "granitemoehybrid": (GRANITE, 0.005),
    "nemotron_h": (
        {
            "hidden_size": 2688, "layers_block_type": ["mamba", "moe", "mamba", "attention"],
            "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128,
            "mamba_num_heads": 64, "mamba_head_dim": 64, "ssm_state_size": 128, "n_groups": 8,
            "vocab_size": 20000, "moe_intermediate_size": 1856, "n_routed_experts": 8,
            "moe_shared_expert_intermediate_size": 3712, "num_experts_per_tok": 2,
        },
        0.005,
    ),
    "falcon_h1": (
        SHARED | {
            "hidden_size": 1280, "num_attention_heads": 12, "num_key_value_heads": 2,
            "head_dim": 64, "intermediate_size": 4096, "mamba_d_ssm": 1536, "mamba_n_heads": 24,
            "mamba_d_head": 64, "mamba_d_state": 128, "mamba_chunk_size": 128,
        },
        0.025,
    ),
    "qwen3_next": (
        SHARED | {"num_hidden_layers": 4, "num_experts": 8, "num_experts_per_tok": 2},
        0.01,
    ),
    "olmo_hybrid": (
        SHARED | {
            "num_hidden_layers": 4, "hidden_size": 2048, "num_attention_heads": 16,
            "num_key_value_heads": 16, "intermediate_size": 6144,
        },
        0.05,
    ),
    "kimi_linear": (
        SHARED | {
            "hidden_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 8,
            "intermediate_size": 2048, "q_lora_rank": None, "kv_lora_rank": 512,
            "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
            "moe_intermediate_size": 512, "num_experts": 8, "num_experts_per_token": 2,
            "linear_attn_config": {
                "full_attn_layers": [2], "kda_layers": [1, 3], "num_heads": 8, "head_dim": 128,
                "short_conv_kernel_size": 4,
            },
        },
        0.01,
    ),
    "bailing_hybrid": (
        SHARED | {
            "hidden_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 8,
            "intermediate_size": 2048, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64, "v_head_dim": 128, "moe_intermediate_size": 512,
            "num_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1,
            "topk_group": 1, "first_k_dense_replace": 1, "linear_head_dim": 128,
            "linear_num_heads": 8, "linear_conv_kernel_dim": 4, "layer_group_size": 3,
        },
        0.01,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SHAPES)
def test_chunks_and_steps(kind: str) -> None:
    fields, part = SHAPES[kind]
    config = transformers.AutoConfig.for_model(kind, **fields).to_dict()
    spec, model = read_model({**config, "dtype": "bfloat16"}, kind), build(config, "sdpa")
    for context, chunk in ((1024, 512), (300, None)):
        counted = measure(model, context, chunk)
        predicted = peak(
            spec, Configuration(chunk=chunk), Workload(context, 2), Attend.SDPA, 0, recent=True
        )
        for found, expected in (
            (predicted.prefill_peak, counted.peak_prefill),
            (predicted.resident, counted.resident),
            (predicted.decode_peak, counted.peak_decode),
        ):
            assert found == pytest.approx(expected - counted.weights, rel=part)
