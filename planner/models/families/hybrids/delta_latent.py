"""Kimi delta attention among latent attention: GLM-5.3 Flash (glm5_next) and Ling 3.0.

Most layers keep one matrix for each head, which does not grow; the others cache an MLA's latent.
GLM-5.3's latent keys have no rotary part, and its indexer pools keys: it caches a key, a gate and
a mark for each token.
"""

from collections.abc import Sequence
from dataclasses import replace

from ...config_fields import Fields
from ...spec import FFN, LatentAttention, Mixer, RecurrentState, Role
from ..blocks.ffn import gated, moe
from ..blocks.layer_types import FULL, LINEAR
from ..blocks.moe import shared_of
from ..blocks.recurrent import delta_state
from ..decoder import Block, Style, layer_types
from ..deepseek import SPARSE, mla
from ..kimi import kimi_delta
from ..moe import listed_or_first


def hyper_connections(b: Block) -> None:
    """Streams mixed before attention and FFN by matrices of their own (as DeepSeek V4's)."""
    streams = b.f.count("hc_mult", high=64)
    mixed = (2 + streams) * streams
    for name in ("attn_hc.", "ffn_hc."):
        b.t.add(f"{name}fn", (mixed, streams * b.hidden), Role.OTHER)
        b.t.add(f"{name}base", (mixed,), Role.OTHER)
        b.t.add(f"{name}scale", (3,), Role.OTHER)


def glm5_kinds(f: Fields, layers: int) -> Sequence[str]:
    """Every fourth layer is latent; those with an indexer of their own are told apart."""
    given = layer_types(f, layers) or [LINEAR if i % 4 != 3 else FULL for i in range(layers)]
    own = f.texts("indexer_types", layers) or ["full"] * layers
    return [
        kind if kind == LINEAR else ("own" if mode == "full" else "shared")
        for kind, mode in zip(given, own, strict=True)
    ]


def glm5_mixer(b: Block, kind: str) -> Mixer:
    f, t = b.f, b.t
    hyper_connections(b)
    if kind == LINEAR:
        return kimi_delta(b, flat=True)
    mixer = mla(b, indexer=kind)
    if mixer.indexer is None:
        return mixer
    dim, pool = mixer.indexer.head_dim, f.count("index_kpool")
    t.add("self_attn.indexer.index_kpool_compress_ape", (pool, dim), Role.OTHER)
    t.add("self_attn.indexer.index_kpool_compress_gate", (dim, b.hidden), Role.LINEAR)
    return replace(mixer, indexer=replace(mixer.indexer, width=2 * dim + 1))


def ling_kinds(f: Fields, layers: int) -> Sequence[str]:
    """The last layer of every group is latent."""
    size = f.count("layer_group_size")
    return layer_types(f, layers) or [LINEAR if (i + 1) % size else FULL for i in range(layers)]


def ling_mixer(b: Block, kind: str) -> Mixer:
    if kind == LINEAR:
        return ling_delta(b)
    mixer: LatentAttention = mla(b, q_rank=False)
    b.t.linear("self_attn.g_proj", b.hidden, mixer.query_heads)
    return mixer


def ling_delta(b: Block) -> RecurrentState:
    """Ling's: the decay and the gate are whole matrices, not products of two narrow ones."""
    f, t = b.f, b.t
    count = f.count("linear_num_heads", f.count("num_attention_heads"))
    dim = f.count("linear_head_dim", f.count("head_dim"))
    kernel = f.count("linear_conv_kernel_dim", f.count("short_conv_kernel_size"))
    width = count * dim
    with t.scope("self_attn."):
        for name in ("q_proj", "k_proj", "v_proj", "forget_gate.f_proj", "g_proj"):
            t.linear(name, b.hidden, width)
        t.add("conv1d.weight", (3 * width, 1, kernel), Role.CONV)
        t.add("forget_gate.dt_bias", (width,), Role.OTHER)
        t.add("forget_gate.A_log", (count,), Role.OTHER)
        t.linear("b_proj", b.hidden, count)
        t.norm("o_norm", dim)
        t.linear("o_proj", width, b.hidden)
    return delta_state(count, dim, kernel)


def ling_ffn(b: Block, kind: str) -> FFN:
    if kind == "dense":
        return gated(b)
    shared = shared_of(b.f)
    return moe(b, experts_field="num_experts", shared="shared_experts", shared_width=shared)


STYLES: dict[str, Style] = {
    "glm5_next_text": Style(
        attention=glm5_mixer, ffn=SPARSE, kinds=glm5_kinds, ffn_kinds=listed_or_first(3)
    ),
    "bailing_hybrid": Style(
        attention=ling_mixer,
        ffn=ling_ffn,
        kinds=ling_kinds,
        ffn_kinds=listed_or_first(2),
        ties=False,
    ),
}
