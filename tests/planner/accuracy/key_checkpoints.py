"""Small checkpoints whose keys have a bias in one layer, as safetensors and as GGUF."""

import json
import struct
from pathlib import Path

import numpy as np

from tests.support.gguf_files import gguf_bytes

LAYERS, KV_HEADS, HEADS, DIM = 4, 2, 4, 32
BIASED = 2
"""The layer with the bias."""


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """float32 arrays as bfloat16."""
    header: dict[str, object] = {}
    body = b""
    for name, array in tensors.items():
        raw = (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def biases(layer: int, bias: float) -> tuple[np.ndarray, np.ndarray]:
    """Biases of a layer's keys and queries: those of the biased one meet in the products."""
    keys, queries = np.zeros(KV_HEADS * DIM), np.zeros(HEADS * DIM)
    keys[DIM - 1] = bias if layer == BIASED else 0.1
    if layer == BIASED:
        queries += 4.0
    return keys, queries


def checkpoint(folder: Path, bias: float) -> Path:
    """A Qwen2 of four layers whose layer 2 has one key channel with a bias of this size."""
    hidden = HEADS * DIM
    config = {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": 64,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "num_hidden_layers": LAYERS,
        "vocab_size": 64,
        "max_position_embeddings": 4096,
        "rope_theta": 1e6,
    }
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    tensors = {}
    for i in range(LAYERS):
        start = f"model.layers.{i}."
        keys, queries = biases(i, bias)
        tensors[f"{start}self_attn.k_proj.bias"] = keys
        tensors[f"{start}self_attn.q_proj.bias"] = queries
        tensors[f"{start}input_layernorm.weight"] = np.ones(hidden)
        for side, rows in (("k", KV_HEADS * DIM), ("q", hidden)):
            weight = rng.standard_normal((rows, hidden)) / hidden**0.5
            tensors[f"{start}self_attn.{side}_proj.weight"] = weight
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def gguf_checkpoint(path: Path, bias: float) -> Path:
    """The same model as llama.cpp's converter stores it: biases and norms as floats."""
    hidden, narrow = HEADS * DIM, KV_HEADS * DIM
    keys = {
        "general.architecture": "qwen2",
        "qwen2.block_count": LAYERS,
        "qwen2.context_length": 4096,
        "qwen2.embedding_length": hidden,
        "qwen2.feed_forward_length": 64,
        "qwen2.attention.head_count": HEADS,
        "qwen2.attention.head_count_kv": KV_HEADS,
        "qwen2.rope.freq_base": 1e6,
        "tokenizer.ggml.tokens": [str(i) for i in range(64)],
    }
    values = {"token_embd.weight": np.zeros((64, hidden)), "output_norm.weight": np.ones(hidden)}
    for i in range(LAYERS):
        own_keys, own_queries = biases(i, bias)
        values |= {f"blk.{i}.attn_k.bias": own_keys, f"blk.{i}.attn_q.bias": own_queries}
        values[f"blk.{i}.attn_v.bias"] = np.zeros(narrow)
        shapes = {
            "attn_q": (hidden, hidden), "attn_k": (narrow, hidden), "attn_v": (narrow, hidden),
            "attn_output": (hidden, hidden), "ffn_gate": (64, hidden), "ffn_up": (64, hidden),
            "ffn_down": (hidden, 64), "attn_norm": (hidden,), "ffn_norm": (hidden,),
        }  # fmt: skip
        values |= {f"blk.{i}.{name}.weight": np.ones(shape) for name, shape in shapes.items()}
    tensors = [(name, array.shape[::-1], "F32") for name, array in values.items()]
    head, _ = gguf_bytes(keys, tensors)
    data = b""
    for array in values.values():
        data += bytes(-len(data) % 32) + array.astype("<f4").tobytes()
    path.write_bytes(head + data)
    return path
