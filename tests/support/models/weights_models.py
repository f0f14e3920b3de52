"""Small configs that the tests of quantized weights share; sizes are multiples of the group."""

import copy

import torch

from kvpareto.runtime.weights.linear import QuantizedLinear

TINY: dict = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TINY_MOE: dict = {
    **TINY,
    "model_type": "qwen3_moe",
    "head_dim": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
PROMPT = torch.arange(3, 40)[None]


def apart(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of the model whose projections are computed one by one."""
    single = copy.deepcopy(model)
    for module in single.modules():
        if isinstance(module, QuantizedLinear):
            module.joint = None
    return single
