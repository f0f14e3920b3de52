"""Small configs of every family, with the options that real ones rarely turn on.

Odd head counts, head_dim that is not hidden/heads, biases on, embeddings tied and not, lists for
each layer, windows short enough to fill. A file a kind of model; `parts` are what they share.
"""

from typing import Any

from tests.support.tiny_configs.decoders import DECODERS
from tests.support.tiny_configs.latent import LATENT
from tests.support.tiny_configs.older import OLDER
from tests.support.tiny_configs.parts import BASE, BIASED, TIED, UNTIED, config
from tests.support.tiny_configs.states import STATES

__all__ = ["BASE", "CONFIGS"]

CONFIGS: dict[str, dict[str, Any]] = DECODERS | LATENT | STATES | OLDER
# Switches that once were misread, each against the class that reads it.
CONFIGS |= {
    "gemma3_text-both-ways": {**CONFIGS["gemma3_text"], "use_bidirectional_attention": True},
    "phimoe-head-bias": {**CONFIGS["phimoe"], "lm_head_bias": True},
    "ernie4_5_moe-biased": {**CONFIGS["ernie4_5_moe"], "use_bias": True},
    "nemotron_h-never-ties": {**CONFIGS["nemotron_h"], **TIED},
    "kimi_linear-never-ties": {**CONFIGS["kimi_linear"], **TIED},
    "zamba2-unshared": {**CONFIGS["zamba2"], **UNTIED},
    "hy_v3-biased": {**CONFIGS["hy_v3"], **BIASED},
    "deepseek_v2-biased": {**CONFIGS["deepseek_v2"], **BIASED},
    "minicpm3-biased": {**CONFIGS["minicpm3"], **BIASED},
    "opt-norms-without-weights": {**CONFIGS["opt"], "layer_norm_elementwise_affine": False},
    "qwen3_next-tied": {**CONFIGS["qwen3_next"], **TIED},
    "mllama_text_model": config(
        "mllama_text_model", cross_attention_layers=[1], architectures=["MllamaForCausalLM"]
    ),
    "bloom-older": {
        **{k: v for k, v in CONFIGS["bloom"].items() if k != "hidden_size"},
        "n_embed": 48,
    },
    "falcon-older": {
        **{k: v for k, v in CONFIGS["falcon"].items() if k != "hidden_size"},
        "n_embed": 48,
    },
    "gpt_neox-tied": {**CONFIGS["gpt_neox"], **TIED},
}
