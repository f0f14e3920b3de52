"""Decoders of the years before Llama, with configs in words of their own."""

from typing import Any

from tests.support.tiny_configs.parts import config


def _gpt(model_type: str, **fields: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "dtype": "bfloat16",
        "vocab_size": 97,
        "n_embd": 48,
        "n_layer": 3,
        "n_head": 6,
        "n_positions": 512,
        "rotary_dim": 4,
        **fields,
    }


OLDER: dict[str, dict[str, Any]] = {
    "gpt2": _gpt("gpt2", n_inner=72),
    "gpt_bigcode": _gpt("gpt_bigcode"),
    "gpt_bigcode-mha": _gpt("gpt_bigcode", multi_query=False),
    "gptj": _gpt("gptj"),
    "codegen": _gpt("codegen", n_head=4),
    "gpt_neo": {
        "model_type": "gpt_neo",
        "dtype": "bfloat16",
        "vocab_size": 97,
        "hidden_size": 48,
        "num_layers": 4,
        "num_heads": 6,
        "attention_types": [[["global", "local"], 2]],
        "window_size": 5,
    },
    "gpt_neox": config("gpt_neox", num_key_value_heads="absent", attention_bias=False),
    "bloom": {
        "model_type": "bloom",
        "dtype": "bfloat16",
        "vocab_size": 97,
        "hidden_size": 48,
        "n_layer": 2,
        "n_head": 6,
    },
    "mpt": {
        "model_type": "mpt",
        "dtype": "bfloat16",
        "vocab_size": 97,
        "d_model": 48,
        "n_layers": 2,
        "n_heads": 6,
        "max_seq_len": 128,
    },
    "opt": config(
        "opt",
        ffn_dim=72,
        word_embed_proj_dim=24,
        do_layer_norm_before=False,
        num_key_value_heads="absent",
        intermediate_size="absent",
    ),
    "falcon": config(
        "falcon",
        num_key_value_heads="absent",
        intermediate_size="absent",
        num_kv_heads=6,
        bias=True,
        multi_query=True,
    ),
    "falcon-mha": config(
        "falcon",
        num_key_value_heads="absent",
        intermediate_size="absent",
        multi_query=False,
        alibi=True,
        parallel_attn=False,
    ),
    "falcon-new": config(
        "falcon",
        num_key_value_heads="absent",
        intermediate_size="absent",
        num_kv_heads=2,
        new_decoder_architecture=True,
        ffn_hidden_size=56,
    ),
}
