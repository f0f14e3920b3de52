"""Mixtures of experts of smaller makers: Flint, Beam, JetMoE, Doge, and Inkling's convolutions."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ..config_fields import Fields
from ..spec import FFN, Attention, MoEFFN, RecurrentState, Role
from .blocks.attention import gqa
from .blocks.ffn import activation, dense_or_moe, experts, gated, moe, stepped
from .blocks.layer_types import FULL, SLIDING
from .decoder import Block, Style, layer_types
from .llama import LLAMA, SANDWICH
from .moe import mlp_listed


def flint_kinds(f: Fields, layers: int) -> Sequence[str]:
    """The first two layers, every fourth after and the last attend fully."""
    return layer_types(f, layers) or [
        FULL if i < 2 or i % 4 == 1 or i == layers - 1 else SLIDING for i in range(layers)
    ]


def flint_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    if f.has("mlp_only_layers"):
        return stepped(f, layers)
    return ["dense" if i < 2 else kind for i, kind in enumerate(stepped(f, layers))]


def beam_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = layer_types(f, layers)
    last = [SLIDING if (i + 1) % 6 else FULL for i in range(layers - 1)]
    return given or [*last, FULL]


def beam_attention(b: Block, kind: str) -> Attention:
    mixer = gqa(b, kind, bias="attention_bias", qk_norm="head", gate="gate_proj")
    b.t.add("self_attn.gate_bias", (mixer.query_heads,), Role.BIAS)
    return mixer


def jetmoe_attention(b: Block, kind: str) -> Attention:
    """A token's queries come from the experts it is routed to, one for each KV head."""
    f, t = b.f, b.t
    kv, dim, count = f.count("num_key_value_heads"), f.count("kv_channels"), _jetmoe_experts(f)
    top = f.count("num_experts_per_tok")
    with t.scope("self_attention."):
        t.linear("kv_proj", b.hidden, 2 * kv * dim)
        t.add("experts.bias", (b.hidden,), Role.BIAS)
        t.add("experts.input_linear.weight", (count, kv * dim, b.hidden), Role.EXPERT)
        t.add("experts.output_linear.weight", (count, b.hidden, kv * dim), Role.EXPERT)
        t.linear("experts.router.layer", b.hidden, count, role=Role.ROUTER)
    return Attention(kv * top, kv, dim, dim)


def _jetmoe_experts(f: Fields) -> int:
    return f.count("num_local_experts")


def jetmoe_ffn(b: Block, kind: str) -> MoEFFN:
    f, t = b.f, b.t
    count, width = _jetmoe_experts(f), f.count("intermediate_size")
    with t.scope("mlp."):
        t.add("bias", (b.hidden,), Role.BIAS)
        t.add("input_linear.weight", (count, 2 * width, b.hidden), Role.EXPERT)
        t.add("output_linear.weight", (count, b.hidden, width), Role.EXPERT)
        t.linear("router.layer", b.hidden, count, role=Role.ROUTER)
    act = f.text("activation_function") or "silu"
    return MoEFFN(count, f.count("num_experts_per_tok"), width, activation=act)


def doge_attention(b: Block, kind: str) -> Attention:
    """Attention whose mask is computed from the values."""
    mixer = gqa(b, kind, bias="attention_bias", qk_norm="head")
    b.t.add("self_attn.A", (mixer.kv_heads,), Role.OTHER)
    width = mixer.kv_heads * mixer.head_dim
    b.t.linear("self_attn.dt_proj", width, mixer.kv_heads, b.f.flag("attention_bias"))
    return mixer


def doge_ffn(b: Block, kind: str) -> FFN:
    """Where `is_moe`, as many narrow experts as pairs of keys, each one row up and one down."""
    f, t = b.f, b.t
    t.add("input_residual", (b.hidden,), Role.OTHER)
    t.add("post_attention_residual", (b.hidden,), Role.OTHER)
    ffn = gated(b, bias="mlp_bias")
    if not f.flag("is_moe"):
        return ffn
    count = f.count("num_experts")
    keys = int(count**0.5)
    t.linear("mlp.router_gate", b.hidden, 2 * keys, role=Role.ROUTER)
    t.embedding("mlp.down_embed", count, b.hidden)
    t.embedding("mlp.up_embed", count, b.hidden)
    top = f.count("num_experts_per_tok")
    return MoEFFN(count, top, 1, ffn.width, False, activation(f))


def inkling_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = f.texts("layer_types", layers)
    if given is None:
        local = f.counts("local_layer_ids")
        at = set(local) if local is not None else {i for i in range(layers) if (i + 1) % 6}
        given = tuple("hybrid_sliding" if i in at else "hybrid" for i in range(layers))
    return [SLIDING if kind == "hybrid_sliding" else FULL for kind in given]


def inkling_mixers(b: Block, kind: str) -> tuple[Attention, RecurrentState]:
    """Attention by learned distances; keys, values and both blocks pass short convolutions."""
    f, t = b.f, b.t
    own = f
    slides = kind == SLIDING
    if slides:
        names = ("num_attention_heads", "num_key_value_heads", "head_dim")
        own = f.changed(**{name: f.count(f"swa_{name}", f.count(name)) for name in names})
    window = f.count("sliding_window_size", high=2**31) if slides else None
    mixer = gqa(Block(own, t, b.hidden), FULL, qk_norm="head")
    rel, kernel = f.count("d_rel"), f.count("conv_kernel_size")
    width = mixer.kv_heads * mixer.head_dim
    with t.scope("self_attn."):
        t.linear("r_proj", b.hidden, mixer.query_heads * rel)
        extent = window or f.count("rel_extent")
        t.add("rel_logits_proj.proj", (rel, extent), Role.OTHER)
        t.add("k_sconv.conv1d.weight", (width, 1, kernel), Role.CONV)
        t.add("v_sconv.conv1d.weight", (width, 1, kernel), Role.CONV)
    for name in ("attn_sconv", "mlp_sconv"):
        t.add(f"{name}.conv1d.weight", (b.hidden, 1, kernel), Role.CONV)
    tails = 2 * (width + b.hidden)
    state = RecurrentState(
        "short_conv",
        state=0,
        conv=tails * kernel,
        heads=1,
        key_dim=0,
        value_dim=tails,
        width=tails,
        conv_dtype="float32",
    )
    return replace(mixer, window=window), state


def inkling_ffn(b: Block, kind: str) -> FFN:
    """Dense, or routed experts beside shared ones, with a learned scale of all."""
    f, t = b.f, b.t
    older = f.has("dense_intermediate_size")
    if kind == "dense":
        dense: FFN = gated(b, width="dense_intermediate_size" if older else "intermediate_size")
        t.add("mlp.global_scale", (1,), Role.OTHER)
        return dense
    width = f.count("intermediate_size" if older else "moe_intermediate_size")
    count, shared = f.count("n_routed_experts"), f.count("n_shared_experts", 0, low=0)
    with t.scope("mlp."):
        rows = count + (shared if f.flag("shared_expert_sink") else 0)
        t.linear("gate", b.hidden, rows, role=Role.ROUTER)
        t.add("gate.global_scale", (1,), Role.OTHER)
        experts(b, count, width)
        if shared:
            t.add("shared_experts.gate_proj", (shared, width, b.hidden), Role.EXPERT)
            t.add("shared_experts.up_proj", (shared, width, b.hidden), Role.EXPERT)
            t.add("shared_experts.down_proj", (shared, b.hidden, width), Role.EXPERT)
    top = f.count("num_experts_per_tok")
    return MoEFFN(count, top, width, shared * width, True, activation(f))


def inkling_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    dense = f.count("dense_mlp_idx", 0, low=0)
    given = f.texts("mlp_layer_types", layers)
    return given or ["dense" if i < dense else "sparse" for i in range(layers)]


STYLES: dict[str, Style] = {
    "flint": Style(
        attention=partial(gqa, bias="attention_bias", qk_norm="head", sinks=True),
        ffn=dense_or_moe(
            gated,
            partial(moe, shared="shared_expert", shared_width="shared_expert_intermediate_size"),
        ),
        kinds=flint_kinds,
        ffn_kinds=flint_ffn_kinds,
    ),
    "beam": Style(
        attention=beam_attention,
        ffn=dense_or_moe(gated, moe),
        kinds=beam_kinds,
        ffn_kinds=mlp_listed(3),
        norms=SANDWICH,
        sandwich=True,
        softcap="final_logit_softcapping",
    ),
    "jetmoe": Style(attention=jetmoe_attention, ffn=jetmoe_ffn),
    "doge": LLAMA.but(attention=doge_attention, ffn=doge_ffn),
    "inkling_text": Style(
        attention=inkling_mixers,
        ffn=inkling_ffn,
        kinds=inkling_kinds,
        ffn_kinds=inkling_ffn_kinds,
        extra=lambda b: b.t.norm("embed_tokens.embed_norm", b.hidden),
    ),
}
