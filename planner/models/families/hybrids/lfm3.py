"""LFM3: gated short convolutions, sliding and full attention with a gate for each head."""

from ...spec import DenseFFN, Mixer
from ..blocks.attention import gqa
from ..blocks.ffn import gated
from ..blocks.recurrent import short_conv
from ..decoder import Block, Style
from .hybrid import lfm2_kinds


def lfm3_mixer(b: Block, kind: str) -> Mixer:
    f = b.f
    if kind == "conv":
        return short_conv(b, kernel=f.count("conv_L_cache"), bias=f.flag("conv_bias"))
    mixer = gqa(b, kind, bias="attention_bias", qk_norm="head")
    if f.flag("use_attention_gate"):
        b.t.linear("self_attn.g_proj", b.hidden, mixer.query_heads)
    return mixer


def lfm3_ffn(b: Block, kind: str) -> DenseFFN:
    if b.f.flag("use_sandwich_norm"):
        b.t.norm("post_operator_norm", b.hidden)
        b.t.norm("post_ffn_norm", b.hidden)
    return gated(b, names=("w1", "w3", "w2"), scope="feed_forward.")


STYLES: dict[str, Style] = {
    "lfm3": Style(
        attention=lfm3_mixer,
        ffn=lfm3_ffn,
        kinds=lfm2_kinds,
        norms=("operator_norm", "ffn_norm"),
        final_norm="embedding_norm",
    )
}
