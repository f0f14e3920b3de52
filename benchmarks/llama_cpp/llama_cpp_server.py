"""llama.cpp in this process, with a pair of cache types; the models that ship as GGUF."""

import json
from pathlib import Path
from typing import Any

TOP = 64
NUMBERS = {"f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20}


def recall_gguf(folder: Path, out: Path) -> None:
    """The model that ships, as llama.cpp's seed_oss. Its tokens are fed by number."""
    import gguf
    import torch
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    writer = gguf.GGUFWriter(out, "seed_oss")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{i}" for i in range(config["vocab_size"])])
    writer.add_token_types([1] * config["vocab_size"])
    writer.add_token_merges(["t 0"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_bos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "post_attention_norm",
    }  # fmt: skip
    for name, tensor in tensors.items():
        if name.startswith("model.layers."):
            _, _, layer, rest = name.split(".", 3)
            module, kind = rest.rsplit(".", 1)
            to = f"blk.{layer}.{names[module]}.{kind}"
        else:
            to = {"model.embed_tokens.weight": "token_embd.weight"}.get(name, "output_norm.weight")
        if tensor.dim() == 1:
            writer.add_tensor(to, tensor.float().numpy())
        else:
            bits = tensor.to(torch.bfloat16).view(torch.int16).numpy().view("uint16")
            writer.add_tensor(
                to, bits, raw_dtype=gguf.GGMLQuantizationType.BF16, raw_shape=tuple(tensor.shape)
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCppServer:
    """llama.cpp's server in this process, on one CPU thread, with a pair of cache types."""

    def __init__(self, model: Path, k: str, v: str, context: int) -> None:
        import xllamacpp as x

        params = x.CommonParams()
        params.model.path = str(model)
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel = context, 512, 512, 1
        params.cache_type_k = x.ggml_type(NUMBERS[k])
        params.cache_type_v = x.ggml_type(NUMBERS[v])
        params.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.fit_params, params.warmup, params.verbosity = False, False, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        self.server = x.Server(params)

    def ask(self, prompt: list[int], tokens: int, top: int, keep: bool) -> list[dict[str, Any]]:
        """The tokens that it writes, each with its `top` most probable alternatives."""
        asked = {
            "prompt": prompt, "n_predict": tokens, "temperature": 0, "n_probs": top,
            "cache_prompt": keep,
        }  # fmt: skip
        answer: Any = self.server.handle_completions(asked)
        answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
        return list(answer["choices"][0]["logprobs"]["content"])

    def answer(self, prompt: list[int], tokens: int) -> list[int]:
        return [entry["id"] for entry in self.ask(prompt, tokens, 1, keep=False)]

    def top(self, prompt: list[int]) -> dict[int, float]:
        """Token -> log probability of the most probable next tokens."""
        first = self.ask(prompt, 1, 4 * TOP, keep=True)[0]
        return {entry["id"]: entry["logprob"] for entry in first["top_logprobs"]}
