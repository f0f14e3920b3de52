"""Step 3.5 to 3.7: attention gated by head, experts listed by layer."""

from collections.abc import Sequence
from dataclasses import replace

from ..config_fields import Fields
from ..spec import FFN, Attention
from .blocks.attention import gqa
from .blocks.ffn import gated, moe
from .blocks.layer_types import FULL, SLIDING
from .decoder import Block, Style


def step_kinds(f: Fields, layers: int) -> Sequence[str]:
    """Step's files list their extra prediction layers after the others."""
    given = f.texts("layer_types")
    if given is None:
        return [FULL] * layers
    extra = f.count("num_nextn_predict_layers", 0, low=0, high=64)
    if len(given) not in (layers, layers + extra):
        raise f.wrong("layer_types", list(given), f"a list of {layers}, one for each layer")
    return given[:layers]


def step_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = f.texts("mlp_layer_types")
    if given is not None and len(given) >= layers:
        return given[:layers]
    listed = f.raw.get("moe_layers_enum")
    if isinstance(listed, str):
        at = {int(item) for item in listed.split(",") if item.strip().isdigit()}
    else:
        at = set(f.counts("moe_layers_enum") or range(3, layers))
    return ["sparse" if i in at else "dense" for i in range(layers)]


def step_attention(b: Block, kind: str) -> Attention:
    """A gate for each head; sliding layers may have more query heads."""
    f = b.f
    own = f
    if kind == SLIDING and f.has("num_sliding_attention_heads"):
        own = f.changed(num_attention_heads=f.count("num_sliding_attention_heads"))
    mixer = gqa(Block(own, b.t, b.hidden), kind, bias="attention_bias", qk_norm="head")
    b.t.linear("self_attn.g_proj", b.hidden, mixer.query_heads)
    return replace(mixer, output_gate=True)


def step_ffn(b: Block, kind: str) -> FFN:
    if kind == "dense":
        return gated(b, bias="mlp_bias")
    name = "n_routed_experts"
    for older in ("moe_num_experts", "num_experts"):
        name = older if b.f.has(older) else name
    ffn = moe(b, experts_field=name)
    shared = b.f.count("share_expert_dim")
    gated(b, width=shared, bias="mlp_bias", scope="mlp.shared_experts.")
    return replace(ffn, shared_width=shared)


STYLES: dict[str, Style] = {
    "step3p5": Style(
        attention=step_attention, ffn=step_ffn, kinds=step_kinds, ffn_kinds=step_ffn_kinds
    ),
}
ALIASES = {"step3p7_text": "step3p5"}
