"""GGUF files of any shape with random weights, for llama.cpp to load: what sizes are held to.

Written from a config.json-like dict: the same dict is what the planner reads, so that both sides
see one model. Needs `gguf` and numpy.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...planner.formats.gguf_types import GGUF_TYPES

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt_oss": "gpt-oss",
    "deepseek_v2": "deepseek2",
    "lfm2": "lfm2",
    "smollm3": "smollm3",
}
"""config.json's model_type -> GGUF's architecture."""


def write_model(
    config: Mapping[str, Any], path: Path, seed: int = 0, weights: str = "F16", data: bool = True
) -> None:
    """A GGUF file of matrices of one type (norms, biases and routers in 32 bits) as `config`
    describes it. Without `data` the file has its whole length and no weights: a hole on disk.

    MXFP4 is the type of experts, beside Q8_0. Rows that are no whole number of blocks stay 16 bits.
    """
    from gguf import GGMLQuantizationType, GGUFWriter

    kind = config["model_type"]
    writer = GGUFWriter(str(path), ARCHITECTURES[kind])
    _metadata(writer, config)
    _vocabulary(writer, config["vocab_size"])
    random = np.random.default_rng(seed)
    sizes = []

    def matrix(name: str, *shape: int, wide: bool = False) -> None:
        stored = "F32" if wide else _stored(weights, name, shape[-1])
        raw = GGMLQuantizationType[stored]
        rows, row = int(np.prod(shape[:-1])), GGUF_TYPES[stored].row_bytes(shape[-1])
        if data:
            blocks = random_blocks(stored, random, 512)
            values = np.resize(blocks, (*shape[:-1], row))
            writer.add_tensor(name, values, raw_dtype=raw)
        else:
            sizes.append(rows * row)
            writer.add_tensor_info(name, shape, np.dtype(np.float32), rows * row, raw)

    _tensors(config, matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    if data:
        writer.write_tensors_to_file()
        writer.close()
        return
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        padded = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
        file.truncate(-(-path.stat().st_size // ALIGNMENT) * ALIGNMENT + sum(padded))


ALIGNMENT = 32


def _stored(weights: str, name: str, row: int) -> str:
    """The type that a matrix is stored in."""
    if weights == "MXFP4" and "_exps" not in name:
        weights = "Q8_0"
    return weights if row % GGUF_TYPES[weights].block == 0 else "F16"


def random_blocks(stored: str, random: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Bytes of `count` blocks whose values are about as large as a model's weights."""
    kind = GGUF_TYPES[stored]
    if stored in ("F16", "F32"):
        values = random.standard_normal(8 * count) * 0.02
        return values.astype(np.float16 if stored == "F16" else np.float32).view(np.uint8)
    blocks = random.integers(0, 256, (count, kind.block_bytes), dtype=np.uint8)
    if stored == "MXFP4":
        blocks[:, 0] = 119  # an exponent: 2**(119 - 127)
        return blocks.reshape(-1)
    scale = {"Q8_0": 3e-4, "Q4_0": 3e-3, "Q6_K": 2e-5, "Q5_K": 3e-5, "Q4_K": 6e-5}[stored]
    at = kind.block_bytes - 2 if stored == "Q6_K" else 0
    blocks[:, at : at + 2] = np.float16(scale).reshape(1).view(np.uint8)
    if stored in ("Q4_K", "Q5_K"):  # the minimum's scale
        blocks[:, 2:4] = np.float16(scale * 7).reshape(1).view(np.uint8)
    return blocks.reshape(-1)


def _head_dim(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _metadata(writer: Any, config: Mapping[str, Any]) -> None:
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(1)
    kind, width = config["model_type"], _head_dim(config)
    if kind == "lfm2":
        kinds = config["layer_types"]
        writer.add_head_count_kv(
            [config["num_key_value_heads"] if k == "full_attention" else 0 for k in kinds]
        )
        writer.add_shortconv_l_cache(config["conv_L_cache"])
    elif kind == "deepseek_v2":
        writer.add_head_count_kv(1)
    else:
        writer.add_head_count_kv(config["num_key_value_heads"])
    if kind == "deepseek_v2":
        rank, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
        writer.add_key_length(rank + rope)
        writer.add_value_length(rank)
        writer.add_key_length_mla(config["qk_nope_head_dim"] + rope)
        writer.add_value_length_mla(config["v_head_dim"])
        writer.add_rope_dimension_count(rope)
        writer.add_kv_lora_rank(rank)
        writer.add_q_lora_rank(config["q_lora_rank"])
        writer.add_leading_dense_block_count(config["first_k_dense_replace"])
        writer.add_expert_shared_count(config["n_shared_experts"])
        writer.add_expert_count(config["n_routed_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
        writer.add_expert_weights_norm(bool(config["norm_topk_prob"]))
    else:
        writer.add_key_length(width)
        writer.add_value_length(width)
        writer.add_rope_dimension_count(width)
    experts = config.get("num_local_experts") or config.get("num_experts")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
        if kind != "mixtral":
            width = config.get("moe_intermediate_size") or config["intermediate_size"]
            writer.add_expert_feed_forward_length(width)
    if kind in ("gemma2", "gemma3_text", "gpt_oss"):
        writer.add_sliding_window(config["sliding_window"])
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])


def _vocabulary(writer: Any, count: int) -> None:
    """A sentencepiece vocabulary: three special tokens, all bytes, and words."""
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{i:02X}>".encode() for i in range(256))]
    tokens += [f"t{i}".encode() for i in range(count - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * count)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (count - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def _tensors(config: Mapping[str, Any], matrix: Any) -> None:
    kind, hidden, vocab = config["model_type"], config["hidden_size"], config["vocab_size"]
    matrix("token_embd.weight", vocab, hidden)
    if not config.get("tie_word_embeddings"):
        matrix("output.weight", vocab, hidden)
    matrix("token_embd_norm.weight" if kind == "lfm2" else "output_norm.weight", hidden, wide=True)
    for index in range(config["num_hidden_layers"]):
        block = f"blk.{index}."
        matrix(block + "attn_norm.weight", hidden, wide=True)
        after = "post_attention_norm" if kind == "gpt_oss" else "ffn_norm"
        matrix(block + after + ".weight", hidden, wide=True)
        if kind in ("gemma2", "gemma3_text"):
            matrix(block + "post_attention_norm.weight", hidden, wide=True)
            matrix(block + "post_ffw_norm.weight", hidden, wide=True)
        if kind == "lfm2" and config["layer_types"][index] != "full_attention":
            matrix(block + "shortconv.conv.weight", hidden, config["conv_L_cache"], wide=True)
            matrix(block + "shortconv.in_proj.weight", 3 * hidden, hidden)
            matrix(block + "shortconv.out_proj.weight", hidden, hidden)
        elif kind == "deepseek_v2":
            _latent(config, block, matrix)
        else:
            _attention(config, block, matrix)
        _feed_forward(config, index, block, matrix)


def _attention(config: Mapping[str, Any], block: str, matrix: Any) -> None:
    kind, hidden, width = config["model_type"], config["hidden_size"], _head_dim(config)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    for name, rows in (("q", heads * width), ("k", kv_heads * width), ("v", kv_heads * width)):
        matrix(f"{block}attn_{name}.weight", rows, hidden)
        if kind in ("qwen2", "gpt_oss"):
            matrix(f"{block}attn_{name}.bias", rows, wide=True)
    matrix(block + "attn_output.weight", hidden, heads * width)
    if kind in ("qwen3", "qwen3_moe", "gemma3_text", "lfm2"):
        matrix(block + "attn_q_norm.weight", width, wide=True)
        matrix(block + "attn_k_norm.weight", width, wide=True)
    if kind == "gpt_oss":
        matrix(block + "attn_output.bias", hidden, wide=True)
        matrix(block + "attn_sinks.weight", heads, wide=True)


def _latent(config: Mapping[str, Any], block: str, matrix: Any) -> None:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    rank, rope, nope = (config[k] for k in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim"))
    query, value = config["q_lora_rank"], config["v_head_dim"]
    matrix(block + "attn_q_a_norm.weight", query, wide=True)
    matrix(block + "attn_kv_a_norm.weight", rank, wide=True)
    matrix(block + "attn_q_a.weight", query, hidden)
    matrix(block + "attn_q_b.weight", heads * (nope + rope), query)
    matrix(block + "attn_kv_a_mqa.weight", rank + rope, hidden)
    matrix(block + "attn_k_b.weight", heads, rank, nope)
    matrix(block + "attn_v_b.weight", heads, value, rank)
    matrix(block + "attn_output.weight", hidden, heads * value)


def _feed_forward(config: Mapping[str, Any], index: int, block: str, matrix: Any) -> None:
    kind, hidden, width = config["model_type"], config["hidden_size"], config["intermediate_size"]
    experts = next(
        (
            config[k]
            for k in ("num_local_experts", "num_experts", "n_routed_experts")
            if k in config
        ),
        0,
    )
    if not experts or index < config.get("first_k_dense_replace", 0):
        matrix(block + "ffn_gate.weight", width, hidden)
        matrix(block + "ffn_up.weight", width, hidden)
        matrix(block + "ffn_down.weight", hidden, width)
        return
    width = config.get("moe_intermediate_size") or width
    matrix(block + "ffn_gate_inp.weight", experts, hidden, wide=True)
    for name in ("gate", "up"):
        matrix(f"{block}ffn_{name}_exps.weight", experts, width, hidden)
    matrix(block + "ffn_down_exps.weight", experts, hidden, width)
    if kind == "gpt_oss":
        matrix(block + "ffn_gate_inp.bias", experts, wide=True)
        matrix(block + "ffn_gate_exps.bias", experts, width, wide=True)
        matrix(block + "ffn_up_exps.bias", experts, width, wide=True)
        matrix(block + "ffn_down_exps.bias", experts, hidden, wide=True)
    if shared := config.get("n_shared_experts"):
        matrix(block + "ffn_gate_shexp.weight", shared * width, hidden)
        matrix(block + "ffn_up_shexp.weight", shared * width, hidden)
        matrix(block + "ffn_down_shexp.weight", hidden, shared * width)
