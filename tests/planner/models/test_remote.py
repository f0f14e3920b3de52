"""Families transformers does not know: totals stated in public, and totals by their code."""

from typing import Any

import pytest

from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import Part
from kvpareto.planner.workload import Workload

# fmt: off
PHI_2 = {"model_type": "phi-msft", "n_embd": 2560, "n_head": 32, "n_head_kv": None, "n_inner": None,
         "n_layer": 32, "n_positions": 2048, "rotary_dim": 32, "vocab_size": 51200}
QWEN_1_8B = {"model_type": "qwen", "hidden_size": 2048, "intermediate_size": 11008,
             "kv_channels": 128, "no_bias": True, "num_attention_heads": 16,
             "num_hidden_layers": 24, "vocab_size": 151936}
INTERNLM2_7B = {"model_type": "internlm2", "bias": False, "hidden_size": 4096,
                "intermediate_size": 14336, "num_attention_heads": 32, "num_hidden_layers": 32,
                "num_key_value_heads": 8, "vocab_size": 92544}
BAICHUAN2_7B = {"model_type": "baichuan", "hidden_size": 4096, "intermediate_size": 11008,
                "num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 125696}
MINICPM_2B = {"model_type": "minicpm", "hidden_size": 2304, "intermediate_size": 5760,
              "num_attention_heads": 36, "num_hidden_layers": 40, "num_key_value_heads": 36,
              "tie_word_embeddings": True, "vocab_size": 122753}
EXAONE_35_7B = {"model_type": "exaone", "activation_function": "silu", "head_dim": 128,
                "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
                "num_key_value_heads": 8, "num_layers": 32, "tie_word_embeddings": False,
                "vocab_size": 102400}
CHATGLM3_6B = {"model_type": "chatglm", "add_bias_linear": False, "add_qkv_bias": True,
               "ffn_hidden_size": 13696, "hidden_size": 4096, "kv_channels": 128,
               "multi_query_attention": True, "multi_query_group_num": 2, "num_attention_heads": 32,
               "num_layers": 28, "padded_vocab_size": 65024, "seq_length": 8192}
DEEPSEEK_MOE_16B = {"model_type": "deepseek", "first_k_dense_replace": 1, "hidden_size": 2048,
                    "intermediate_size": 10944, "moe_intermediate_size": 1408,
                    "n_routed_experts": 64, "n_shared_experts": 2, "num_attention_heads": 16,
                    "num_experts_per_tok": 6, "num_hidden_layers": 28, "num_key_value_heads": 16,
                    "vocab_size": 102400}
PHI_35_VISION = {"model_type": "phi3_v", "hidden_size": 3072, "intermediate_size": 8192,
                 "img_processor": {"name": "clip_vision_model"}, "num_attention_heads": 32,
                 "num_hidden_layers": 32, "num_key_value_heads": 32, "vocab_size": 32064}
RWKV5_1B5 = {"model_type": "rwkv5", "hidden_size": 2048, "num_hidden_layers": 24, "head_size": 64,
             "vocab_size": 65536}
# fmt: on


@pytest.mark.parametrize(
    ("config", "stated"),
    [
        (PHI_2, 2_779_683_840),
        (INTERNLM2_7B, 7_737_708_544),
        (MINICPM_2B, 2_724_880_896),
        (EXAONE_35_7B, 7_818_448_896),
        (CHATGLM3_6B, 6_243_584_000),
        (DEEPSEEK_MOE_16B, 16_375_728_128),
        (PHI_35_VISION, 4_146_621_440),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else f"{value / 1e9:.2f}B",
)
def test_parameters_as_stated_in_public(config: dict[str, Any], stated: int) -> None:
    assert read_model(config, "x").parameters == stated


def test_qwen_1_by_its_code() -> None:
    # A bias on q, k and v alone; w1 and w2 of 5504; two norms a layer and one at the end.
    layer = 4 * 2048**2 + 3 * 2048 + 3 * 2048 * 5504 + 2 * 2048
    expected = 2 * 151936 * 2048 + 24 * layer + 2048
    assert read_model(QWEN_1_8B, "qwen").parameters == expected


def test_baichuan_by_its_code() -> None:
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    expected = 2 * 125696 * 4096 + 32 * layer + 4096
    assert read_model(BAICHUAN2_7B, "baichuan").parameters == expected


def test_rwkv_5_by_its_code() -> None:
    # Time mixing: five square matrices, four mixes, decay and bonus, a norm; channel mixing:
    # 2048 x 7168 twice, one square, two mixes; two norms a layer, one before and one after all.
    mixing = 5 * 2048**2 + 4 * 2048 + 2 * 2048 + 2 * 2048
    channel = 2 * 2048 * 7168 + 2048**2 + 2 * 2048
    expected = 2 * 65536 * 2048 + 24 * (mixing + channel + 4 * 2048) + 4 * 2048
    assert read_model(RWKV5_1B5, "rwkv5").parameters == expected


def test_rwkv_has_no_kv_cache_and_a_constant_state() -> None:
    spec = read_model({**RWKV5_1B5, "dtype": "bfloat16"}, "rwkv5")
    short, long = (
        kv_bytes(spec, Configuration(), Workload(n, 0), TRANSFORMERS) for n in (10, 10**6)
    )
    # 24 layers: 32 heads x 64 x 64 in float32, and two tokens of 2048 channels in bf16.
    assert short.total == long.total == 24 * (32 * 64 * 64 * 4 + 2 * 2048 * 2)
    assert long.per_token == 0


def _block(attention: dict[str, Any], ffn: dict[str, Any]) -> dict[str, Any]:
    return {"attention": attention, "ffn": ffn}


def test_nemotron_nas_blocks_differ_and_disappear() -> None:
    full = {"n_heads_in_group": 8, "no_op": False, "replace_with_linear": False}
    wide = {"ffn_mult": 2.625, "no_op": False, "replace_with_linear": False}
    none = {"n_heads_in_group": None, "no_op": True, "replace_with_linear": False}
    line = {"ffn_mult": None, "no_op": False, "replace_with_linear": True}
    config = {
        "model_type": "nemotron-nas",
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_hidden_layers": 3,
        "vocab_size": 512,
        "block_configs": [_block(full, wide), _block(none, wide), _block(full, line)],
    }
    spec = read_model(config, "nas")
    # 2 x 2.625 x 1024 / 3 = 1792 = 7 x 256
    attention, ffn, norm = 1024 * 64 * (16 + 2 * 2 + 16), 3 * 1024 * 1792, 1024
    expected = 2 * 512 * 1024 + norm
    expected += (attention + ffn + 2 * norm) + (ffn + norm) + (attention + 1024**2 + 2 * norm)
    assert spec.parameters == expected
    assert [len(layer.mixers) for layer in spec.layers] == [1, 0, 1]


def test_extra_prediction_layers_are_counted_apart() -> None:
    config = {
        "model_type": "mimo", "hidden_size": 4096, "intermediate_size": 11008,
        "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8,
        "num_nextn_predict_layers": 1, "vocab_size": 151680,
    }  # fmt: skip
    spec = read_model(config, "mimo")
    # Attention with biases on q, k and v; FFN; five norms; one projection of two streams.
    layer = 2 * 4096**2 + 2 * 4096 * 1024 + 4096 + 2 * 1024 + 3 * 4096 * 11008
    assert spec.parameters_of(Part.MTP) == layer + 5 * 4096 + 2 * 4096**2


def test_minimax_01_lists_its_kinds_as_ones_and_zeros() -> None:
    config = {
        "model_type": "minimax_text_01", "hidden_size": 96, "head_dim": 16, "vocab_size": 97,
        "intermediate_size": 40, "num_attention_heads": 6, "num_key_value_heads": 2,
        "num_hidden_layers": 4, "num_local_experts": 3, "num_experts_per_tok": 2,
        "attn_type_list": [0, 0, 0, 1],
    }  # fmt: skip
    listed, counted = (
        [type(layer.mixers[0]).__name__ for layer in read_model(c, "minimax").layers]
        for c in (config, {**config, "model_type": "minimax"})
    )
    assert listed == ["RecurrentState"] * 3 + ["Attention"]
    assert counted == ["Attention", "RecurrentState"] * 2
