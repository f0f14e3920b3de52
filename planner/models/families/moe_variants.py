"""Further mixtures of experts: Llama 4, LongCat, DBRX, Command with experts, Laguna and others."""

from collections.abc import Sequence
from functools import partial

from ..config_fields import Fields
from ..spec import FFN, Attention, DenseFFN, MoEFFN, Role
from .blocks.attention import gqa
from .blocks.ffn import activation, dense_or_moe, gated, moe
from .blocks.layer_types import FULL, SLIDING, first_of_four_full
from .blocks.moe import correction_bias, granite_moe_ffn, shared_of
from .decoder import Block, Style, layer_types
from .deepseek import mla, only_full
from .llama import COHERE, GLM4, LAYER_NORM, LLAMA
from .moe import listed_or_first, mlp_listed


def llama4_kinds(f: Fields, layers: int) -> Sequence[str]:
    """Layers with RoPE see their own chunk, every fourth (without RoPE) everything."""
    given = layer_types(f, layers)
    if given is not None:
        return given
    rope = f.counts("no_rope_layers") or None
    if rope is None:
        interval = f.count("no_rope_layer_interval", 4)
        rope = tuple(int((i + 1) % interval != 0) for i in range(layers))
    if len(rope) != layers:
        raise f.wrong("no_rope_layers", list(rope), f"a list of {layers}, one for each layer")
    return ["chunked_attention" if turns else FULL for turns in rope]


def llama4_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    at = f.counts("moe_layers")
    if at is None:
        step = f.count("interleave_moe_layer_step")
        at = tuple(range(step - 1, layers, step))
    return ["moe" if i in at else "dense" for i in range(layers)]


def llama4_ffn(b: Block, kind: str) -> FFN:
    f, t = b.f, b.t
    if kind == "dense":
        return gated(b, width="intermediate_size_mlp", scope="feed_forward.")
    count, width = f.count("num_local_experts"), f.count("intermediate_size")
    with t.scope("feed_forward."):
        t.add("experts.gate_up_proj", (count, b.hidden, 2 * width), Role.EXPERT)
        t.add("experts.down_proj", (count, width, b.hidden), Role.EXPERT)
        t.linear("router", b.hidden, count, role=Role.ROUTER)
        gated(b, width=width, scope="shared_expert.")
    return MoEFFN(count, f.count("num_experts_per_tok"), width, width, True, activation(f))


def cohere2_moe_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = layer_types(f, layers)
    if given is not None:
        return given
    dense = min(f.count("first_k_dense_replace", 0, low=0), layers)
    early = f.count("prefix_dense_sliding_window_pattern")
    later = f.count("sliding_window_pattern")
    first = [SLIDING if (i + 1) % early else FULL for i in range(dense)]
    return first + [SLIDING if (i + 1) % later else FULL for i in range(layers - dense)]


def cohere2_moe_ffn(b: Block, kind: str) -> FFN:
    f = b.f
    if kind == "dense":
        return gated(b, width="prefix_dense_intermediate_size")
    shared = f.count("num_shared_experts", 0, low=0) * f.count("intermediate_size")
    return moe(b, width="intermediate_size", shared="shared_experts", shared_width=shared)


def laguna_kinds(f: Fields, layers: int) -> Sequence[str]:
    """The attention kind and, where layers differ in it, the number of query heads."""
    kinds = layer_types(f, layers) or [FULL] * layers
    counts = f.counts("num_attention_heads_per_layer", layers, low=1)
    counts = counts or (f.count("num_attention_heads"),) * layers
    return [f"{kind}:{count}" for kind, count in zip(kinds, counts, strict=True)]


def laguna_attention(b: Block, kind: str) -> Attention:
    """Llama's with the query heads that the layer's kind says, and a gate on heads or channels."""
    name, _, count = kind.partition(":")
    own = b.f.changed(num_attention_heads=int(count))
    mixer = gqa(Block(own, b.t, b.hidden), name, bias="attention_bias", qk_norm="head")
    gating = b.f.raw.get("gating", b.f.defaults.get("gating"))
    each_head = gating is True or gating == "per-head"
    width = mixer.query_heads * (1 if each_head else mixer.head_dim)
    b.t.linear("self_attn.g_proj", b.hidden, width)
    return mixer


def laguna_ffn(b: Block, kind: str) -> FFN:
    if kind == "dense":
        return gated(b)
    return moe(
        b,
        shared="shared_experts",
        shared_width="shared_expert_intermediate_size",
        extra=correction_bias("gate.e_score_correction_bias"),
    )


def hyperclovax_ffn(b: Block, kind: str) -> DenseFFN:
    if b.f.flag("use_post_norm"):
        b.t.norm("post_norm1", b.hidden)
        b.t.norm("post_norm2", b.hidden)
    return gated(b, bias="mlp_bias")


def stablelm_attention(b: Block, kind: str) -> Attention:
    mixer = gqa(b, kind, bias="use_qkv_bias", output_bias=False, head_dim=False)
    if b.f.flag("qk_layernorm"):
        with b.t.scope("self_attn."):
            for name, count in (("q", mixer.query_heads), ("k", mixer.kv_heads)):
                b.t.add(f"{name}_layernorm.norms.*.weight", (mixer.head_dim,), Role.NORM)
                with b.t.scope(times=count - 1):
                    b.t.add(f"{name}_layernorm.norms.*.weight", (mixer.head_dim,), Role.NORM)
    if not b.f.flag("use_parallel_residual"):
        b.t.norm("post_attention_layernorm", b.hidden, True)
    return mixer


def kolibri_ffn(b: Block, kind: str) -> FFN:
    if kind == "dense":
        return gated(b)
    return moe(
        b,
        experts_field="num_local_experts",
        shared="shared_experts",
        shared_width="shared_expert_intermediate_size",
    )


def axk1_ffn(b: Block, kind: str) -> FFN:
    if kind == "dense":
        return gated(b)
    b.t.norm("mlp.post_mlp_layernorm", b.hidden)
    return moe(
        b, experts_field="n_routed_experts", shared="shared_experts", shared_width=shared_of(b.f)
    )


def aria_ffn(b: Block, kind: str) -> FFN:
    """Aria's experts lie (in, out)."""
    f, t = b.f, b.t
    count, width = f.count("moe_num_experts"), f.count("intermediate_size")
    shared = f.count("moe_num_shared_experts", low=0) * width
    with t.scope("mlp."):
        t.linear("router", b.hidden, count, role=Role.ROUTER)
        t.add("experts.gate_up_proj", (count, b.hidden, 2 * width), Role.EXPERT)
        t.add("experts.down_proj", (count, width, b.hidden), Role.EXPERT)
        gated(b, width=shared, bias="mlp_bias", scope="shared_experts.")
    return MoEFFN(count, f.count("moe_topk"), width, shared, True, activation(f))


STYLES: dict[str, Style] = {
    "llama4_text": LLAMA.but(
        attention=partial(gqa, bias="attention_bias"),
        ffn=llama4_ffn,
        kinds=llama4_kinds,
        ffn_kinds=llama4_ffn_kinds,
    ),
    "cohere2_moe": COHERE.but(
        attention=partial(gqa, bias="attention_bias"),
        ffn=cohere2_moe_ffn,
        kinds=cohere2_moe_kinds,
        ffn_kinds=listed_or_first(0),
    ),
    "laguna": Style(
        attention=laguna_attention, ffn=laguna_ffn, kinds=laguna_kinds, ffn_kinds=mlp_listed(1)
    ),
    "mellum": Style(
        attention=partial(gqa, bias="attention_bias", qk_norm="head"),
        ffn=dense_or_moe(gated, partial(moe, experts_field="num_local_experts")),
        ffn_kinds=mlp_listed(0),
        kinds=lambda f, n: layer_types(f, n) or [FULL] * n,
    ),
    "kolibri1": Style(
        attention=partial(gqa, qk_norm="head"),
        ffn=kolibri_ffn,
        ffn_kinds=listed_or_first(0),
        kinds=lambda f, n: (
            layer_types(f, n) or [SLIDING if (i + 1) % 5 else FULL for i in range(n)]
        ),
        norms=GLM4.norms,
        sandwich=True,
    ),
    "axk1": Style(attention=mla, ffn=axk1_ffn, kinds=only_full, ffn_kinds=mlp_listed(1)),
    "granitemoe_swa": LLAMA.but(
        attention=partial(gqa, bias="attention_bias", sinks=True),
        ffn=granite_moe_ffn,
        kinds=first_of_four_full,
    ),
    "hyperclovax": LLAMA.but(ffn=hyperclovax_ffn),
    "stablelm": Style(
        attention=stablelm_attention,
        ffn=gated,
        norms=("input_layernorm",),
        parallel="use_parallel_residual",
        **LAYER_NORM,
    ),
    "aria_text": LLAMA.but(ffn=aria_ffn),
}
ALIASES = {"stablelm_epoch": "stablelm"}
