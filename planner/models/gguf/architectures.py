"""llama.cpp's architectures in the words of transformers' configs: GGUF keys -> a config.json.

A family is read in one place only (planner/models/families), so a GGUF is described to it as the
config.json that the same model has on the hub. An architecture that is not in the table is refused
by name; tests/data/gguf_headers.jsonl holds what llama.cpp's own converter writes for most of them.
"""

from collections.abc import Callable

from .fields import (
    FULL,
    SLIDING,
    Config,
    Extra,
    always,
    biases,
    common,
    dense_experts,
    ernie,
    ernie_moe,
    every,
    experts,
    first_dense,
    granite_moe,
    hunyuan_moe,
    llama4_layers,
    mixtral,
    olmo,
    partial_rotary,
    phi_window,
    qk_norm,
    routed_layers,
    shared,
    shared_width,
    softcaps,
    stable,
    windows,
    without,
)
from .fields_families import (
    big_code,
    bloom,
    falcon,
    gemma_four,
    gemma_nano,
    gpt2,
    nemotron_kinds,
    neox,
)
from .fields_hybrid import (
    NO_ATTENTION,
    conv_kinds,
    deepseek,
    gated_delta,
    granite_kinds,
    granite_type,
    indexer,
    jamba_kinds,
    latent,
    mamba1,
    mamba2,
    mamba2_sizes,
    mamba_type,
    moe_layers,
)
from .keys import GgufKeys

Entry = tuple[str | Callable[[GgufKeys], str], tuple[Extra, ...]]
"""The transformers model type (or what tells it), and what adds its fields to the common ones."""

# Llama but for tensors' names on the hub, which GGUF does not keep.
PLAIN = (
    "internlm2", "minicpm", "baichuan", "xverse", "exaone", "maincoder", "pangu-embedded",
    "llama-embed",
)  # fmt: skip
UNIFORM: dict[str, Entry] = {
    "llama": (dense_experts, (biases, mixtral)),
    **dict.fromkeys(PLAIN, ("llama", (biases,))),
    "mistral3": ("ministral3", ()),
    "qwen2": ("qwen2", (always(use_sliding_window=False),)),
    "qwen2vl": ("qwen2", (always(use_sliding_window=False),)),
    "dream": ("qwen2", (always(use_sliding_window=False),)),
    "qwen3": ("qwen3", (biases, always(use_sliding_window=False))),
    "qwen3vl": ("qwen3", (biases, always(use_sliding_window=False))),
    "qwen2moe": (
        "qwen2_moe",
        (
            experts(),
            shared_width("shared_expert_intermediate_size"),
            lambda k: {"qkv_bias": k.has("attn_q.bias")},
            always(decoder_sparse_step=1, mlp_only_layers=[], use_sliding_window=False),
        ),
    ),
    **dict.fromkeys(
        ("qwen3moe", "qwen3vlmoe"),
        (
            "qwen3_moe",
            (
                biases,
                experts(),
                always(decoder_sparse_step=1, mlp_only_layers=[], use_sliding_window=False),
            ),
        ),
    ),
    "gemma": ("gemma", (biases,)),
    "gemma2": ("gemma2", (biases, softcaps, windows(every(2)))),
    "gemma3": ("gemma3_text", (biases, softcaps, windows(every(6)))),
    "phi2": ("phi", (partial_rotary, lambda k: {"qk_layernorm": k.has("attn_q_norm.weight")})),
    "phi3": ("phi3", (phi_window, partial_rotary)),
    "phimoe": (
        "phimoe",
        (
            biases,
            experts("num_local_experts", "intermediate_size"),
            lambda k: {"lm_head_bias": "output.bias" in k.tensors, "sliding_window": None},
        ),
    ),
    "granite": ("granite", (biases,)),
    "granitemoe": (
        granite_moe,
        (
            biases,
            experts("num_local_experts", "intermediate_size"),
            shared_width("shared_intermediate_size"),
        ),
    ),
    "olmo": ("olmo", (biases,)),
    "olmo2": (olmo, (biases, windows(every(4)))),
    "olmoe": ("olmoe", (biases, experts("num_experts", "intermediate_size"))),
    "stablelm": ("stablelm", (stable, partial_rotary)),
    "starcoder2": ("starcoder2", (ernie, always(sliding_window=None))),
    "smollm3": ("smollm3", (biases, always(use_sliding_window=False))),
    "seed_oss": (
        "seed_oss",
        (biases, lambda k: {"attention_out_bias": k.has("attn_output.bias")}),
    ),
    "arcee": ("arcee", (biases,)),
    "apertus": ("apertus", (biases, always(hidden_act="xielu"))),
    "command-r": ("cohere", (biases, qk_norm)),
    "cohere2": ("cohere2", (biases, windows(every(4)))),
    "dots1": (
        "dots1",
        (
            biases,
            experts("n_routed_experts"),
            shared("n_shared_experts"),
            first_dense(),
            always(sliding_window=None, layer_types=None),
        ),
    ),
    "ernie4_5": ("ernie4_5", (ernie,)),
    "ernie4_5-moe": ("ernie4_5_moe", (ernie, ernie_moe)),
    "exaone4": ("exaone4", (windows(every(4)),)),
    "chatglm": ("glm", (biases, partial_rotary)),
    "glm4": ("glm4", (biases, partial_rotary)),
    "glm4moe": (
        "glm4_moe",
        (
            biases,
            qk_norm,
            partial_rotary,
            experts("n_routed_experts"),
            shared("n_shared_experts"),
            first_dense(),
        ),
    ),
    "gpt-oss": (
        "gpt_oss",
        (
            biases,
            experts("num_local_experts", "intermediate_size"),
            # Even layers slide: llama.cpp's pattern of 2.
            windows(lambda k: [FULL if i % 2 else SLIDING for i in range(k.layers)]),
        ),
    ),
    "hunyuan-dense": ("hunyuan_v1_dense", (biases,)),
    "hunyuan-moe": ("hunyuan_v1_moe", (biases, hunyuan_moe)),
    "hy_v3": (
        "hy_v3",
        (
            biases,
            experts(),
            lambda k: {
                "num_shared_experts": (k.optional("expert_shared_feed_forward_length") or 0)
                // k.count("expert_feed_forward_length"),
                "mlp_layer_types": [
                    "sparse" if i in routed_layers(k) else "dense" for i in range(k.layers)
                ],
            },
        ),
    ),
    "llama4": ("llama4_text", (biases, llama4_layers)),
    "nemotron": ("nemotron", (biases, partial_rotary)),
    "minimax-m2": (
        "minimax_m2",
        (qk_norm, experts("num_local_experts", "intermediate_size")),
    ),
}
HYBRID: dict[str, Entry] = {
    "deepseek2": (deepseek, (latent, moe_layers)),
    "minicpm3": ("minicpm3", (latent,)),
    "deepseek32": ("deepseek_v32", (latent, moe_layers, indexer)),
    "glm-dsa": (
        "glm_moe_dsa",
        (latent, moe_layers, indexer),
    ),
    "qwen3next": (
        "qwen3_next",
        (
            gated_delta,
            partial_rotary,
            experts(),
            shared_width("shared_expert_intermediate_size"),
            always(decoder_sparse_step=1, mlp_only_layers=[]),
        ),
    ),
    "qwen35": ("qwen3_5_text", (gated_delta, partial_rotary)),
    "qwen35moe": (
        "qwen3_5_moe_text",
        (
            gated_delta,
            partial_rotary,
            experts(),
            shared_width("shared_expert_intermediate_size"),
        ),
    ),
    "granitehybrid": (granite_type, (biases, mamba2_sizes, granite_kinds)),
    "falcon-h1": ("falcon_h1", (biases, mamba2_sizes)),
    "jamba": ("jamba", (jamba_kinds,)),
    "lfm2": ("lfm2", (conv_kinds,)),
    "lfm2moe": (
        "lfm2_moe",
        (conv_kinds, experts(), first_dense("num_dense_layers")),
    ),
    "mamba": (mamba_type, (mamba1, NO_ATTENTION)),
    "mamba2": ("mamba2", (without("num_attention_heads", "head_dim"), mamba2)),
    "nemotron_h": ("nemotron_h", (nemotron_kinds,)),
    "nemotron_h_moe": ("nemotron_h", (nemotron_kinds,)),
    "gemma3n": ("gemma3n_text", (biases, softcaps, windows(), gemma_nano)),
    "gemma4": ("gemma4_text", (biases, softcaps, windows(), gemma_four)),
    "bloom": ("bloom", (bloom,)),
    "gpt2": ("gpt2", (gpt2,)),
    "starcoder": ("gpt_bigcode", (big_code,)),
    "falcon": ("falcon", (falcon,)),
    "gptneox": ("gpt_neox", (neox, partial_rotary)),
}
ARCHITECTURES = {**UNIFORM, **HYBRID}
"""Every architecture that is read."""


def config_of(k: GgufKeys) -> Config | None:
    """The config.json of the model, None where its architecture is not known here."""
    entry = ARCHITECTURES.get(k.architecture)
    if entry is None:
        return None
    model_type, extras = entry
    config = {"model_type": model_type if isinstance(model_type, str) else model_type(k)}
    config |= common(k)
    for extra in extras:
        config |= extra(k)
    return {name: value for name, value in config.items() if value is not ...}
