"""The config of a small MLX checkpoint."""

from typing import Any

GROUP64 = {"group_size": 64, "bits": 4, "mode": "affine"}


def dense(**changes: object) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 1000,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "quantization": GROUP64,
    }
    return config | changes
