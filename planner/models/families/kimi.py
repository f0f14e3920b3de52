"""Kimi Linear and Kimi K3: delta attention beside MLA."""

from collections.abc import Sequence
from dataclasses import replace

from ..config_fields import Fields
from ..spec import FFN, LatentAttention, Mixer, MoEFFN, RecurrentState, Role
from ..tensor_list import Tensors
from .blocks.ffn import activation, gated, moe
from .blocks.layer_types import FULL, LINEAR
from .blocks.recurrent import delta_state
from .config_defaults import section
from .decoder import Block, Decoder, Style, layer_types, text_decoder
from .deepseek import mla
from .unknown.encoders import tower_bounds


def _linear(f: Fields, name: str, older: str) -> int:
    """Kimi Linear's sizes, under `linear_attn_config` in the published file."""
    section = f.mapping("linear_attn_config") or {}
    inner = Fields(section, kind=f.kind, path=f"{f.path}linear_attn_config.", notes=f.notes)
    return inner.count(older) if older in section else f.count(name)


def kimi_delta(b: Block, *, flat: bool = False) -> RecurrentState:
    """Kimi's delta attention: a gated delta net whose decay has a value for every channel.

    `flat`: the heads' decays lie in a vector, not in a tensor of four axes.
    """
    f, t = b.f, b.t
    count = _linear(f, "linear_num_heads", "num_heads")
    dim = _linear(f, "linear_head_dim", "head_dim")
    kernel = _linear(f, "linear_conv_kernel_dim", "short_conv_kernel_size")
    width = count * dim
    with t.scope("self_attn."):
        for name in ("q_proj", "k_proj", "v_proj"):
            t.linear(name, b.hidden, width)
        t.add("conv1d.weight", (3 * width, 1, kernel), Role.CONV)
        t.add("forget_gate.dt_bias", (width,), Role.OTHER)
        t.add("forget_gate.A_log", (count,) if flat else (1, 1, count, 1), Role.OTHER)
        for down, up in (
            ("forget_gate.f_a_proj", "forget_gate.f_b_proj"),
            ("g_a_proj", "g_b_proj"),
        ):
            t.linear(down, b.hidden, dim)
            t.linear(up, dim, width)
        t.linear("b_proj", b.hidden, count)
        t.norm("o_norm", dim)
        t.linear("o_proj", width, b.hidden)
    return delta_state(count, dim, kernel)


def kimi_mixer(b: Block, kind: str) -> Mixer:
    return mla(b) if kind == FULL else kimi_delta(b)


def kimi_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = layer_types(f, layers)
    if given is not None:
        return given
    section = f.mapping("linear_attn_config") or {}
    inner = Fields(section, kind=f.kind, path=f"{f.path}linear_attn_config.", notes=f.notes)
    full = inner.counts("full_attn_layers")
    if full is None:
        return [FULL if i and i % 4 == 0 else LINEAR for i in range(layers)]
    return [FULL if i + 1 in full else LINEAR for i in range(layers)]


def kimi_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    dense = f.count("first_k_dense_replace", 1, low=0)
    given = f.texts("mlp_layer_types", layers)
    return given or ["dense" if i < dense else "sparse" for i in range(layers)]


def kimi_ffn(b: Block, kind: str) -> FFN:
    if kind == "dense":
        return gated(b)
    shared = b.f.count("n_shared_experts", 0, low=0) * b.f.count("moe_intermediate_size")
    return moe(b, shared="shared_experts", shared_width=shared)


def k3_mixer(b: Block, kind: str) -> Mixer:
    """Kimi K3: delta attention with a full-rank gate, and MLA whose output is gated."""
    f, t = b.f, b.t
    if kind != FULL:
        return kimi_delta(b)
    mixer: LatentAttention = mla(b)
    if f.flag("mla_use_output_gate"):
        t.linear("self_attn.g_proj", b.hidden, mixer.query_heads * mixer.value_dim)
    return mixer


def k3_ffn(b: Block, kind: str) -> FFN:
    """Experts work in a latent of `routed_expert_hidden_size`, the shared ones do not."""
    f, t = b.f, b.t
    if kind == "dense":
        return gated(b)
    count, width = f.count("num_experts"), f.count("moe_intermediate_size")
    latent = f.count("routed_expert_hidden_size", b.hidden)
    shared = f.count("num_shared_experts", 0, low=0) * width
    with t.scope("mlp."):
        t.linear("gate", b.hidden, count, role=Role.ROUTER)
        t.add("experts.gate_up_proj", (count, 2 * width, latent), Role.EXPERT)
        t.add("experts.down_proj", (count, latent, width), Role.EXPERT)
        if latent != b.hidden:
            t.linear("fc1_latent_proj", b.hidden, latent)
            t.linear("fc2_latent_proj", latent, b.hidden)
        if shared:
            gated(b, width=shared, scope="shared_experts.")
    top_k = f.count("num_experts_per_token")
    return MoEFFN(count, top_k, width, shared, True, activation(f))


def kimi_k3(f: Fields, t: Tensors) -> Decoder:
    """Kimi K3's text model. Its code is not in transformers: its fields' names are all there is."""
    text = section(f, "text_config", "kimi_linear")
    f.note(
        "Kimi K3 is read by the names of its fields; its vision tower, its residual attention and "
        "the shapes of its gates are not known"
    )
    decoder = text_decoder(text, t, K3)
    return replace(decoder, bounds=(tower_bounds(f, t, decoder.hidden),))


K3 = Style(attention=k3_mixer, ffn=k3_ffn, kinds=kimi_kinds, ffn_kinds=kimi_ffn_kinds)
STYLES: dict[str, Style] = {
    "kimi_linear": Style(
        attention=kimi_mixer, ffn=kimi_ffn, kinds=kimi_kinds, ffn_kinds=kimi_ffn_kinds, ties=False
    ),
}
READERS = {"kimi_k3": kimi_k3}
