"""Llama 3.2 Vision and Phi-4-multimodal: the text model, without its towers."""

from collections.abc import Sequence
from dataclasses import replace

from ..config_fields import Fields
from ..spec import Attention, Role
from ..tensor_list import Tensors
from .blocks.attention import gqa
from .blocks.ffn import gated
from .blocks.layer_types import FULL
from .config_defaults import section
from .decoder import Block, Decoder, Style, text_decoder
from .llama import STYLES as KNOWN
from .unknown.encoders import tower_bounds


def mllama_kinds(f: Fields, layers: int) -> Sequence[str]:
    cross = f.counts("cross_attention_layers")
    if cross is None:
        cross = tuple(range(3, layers, 5))
        f.note(f"{f.path}cross_attention_layers is not in the config: taken as 3, 8, 13, …")
    return ["cross" if i in cross else FULL for i in range(layers)]


def mllama_attention(b: Block, kind: str) -> Attention | tuple[Attention, ...]:
    """Llama 3.2 Vision: some layers look at the image's tokens alone and cache no text."""
    if kind == FULL:
        return gqa(b, kind)
    for gate in ("cross_attn_attn_gate", "cross_attn_mlp_gate"):
        b.t.add(gate, (1,), Role.OTHER)
    gqa(b, FULL, qk_norm="head", scope="cross_attn.")
    return ()


def mllama(f: Fields, t: Tensors) -> Decoder:
    text = section(f, "text_config", "mllama_text_model")
    f.note("only the text model of mllama is described; images add keys to its cross-attention")
    decoder = text_decoder(text, t, MLLAMA, prefix="model.language_model.")
    return replace(decoder, bounds=(tower_bounds(f, t, decoder.hidden),))


def phi4mm(f: Fields, t: Tensors) -> Decoder:
    """Phi-4-multimodal: Phi-3's decoder; its image and speech encoders are not described."""
    f.note(f"only the text model of {f.kind} is described: its other towers are not")
    decoder = text_decoder(f, t, PHI3)
    return replace(decoder, bounds=(tower_bounds(f, t, decoder.hidden),))


MLLAMA = Style(attention=mllama_attention, ffn=gated, kinds=mllama_kinds, embed_extra=8)
PHI3 = KNOWN["phi3"]
STYLES: dict[str, Style] = {"mllama_text_model": MLLAMA}
READERS = {"mllama": mllama, "phi4mm": phi4mm, "phi4_multimodal": phi4mm}
