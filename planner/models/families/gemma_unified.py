"""Gemma 4 unified: Gemma 4's decoder reading pixels and sound itself, without encoders.

Patches and frames of sound are projected into the stream by one small embedder each; there are
no inputs of a layer's own and no experts. A section that is null means that input is not taken.
"""

from ..config_fields import Fields
from ..spec import Part, Role
from ..tensor_list import Tensors
from .blocks.ffn import gated
from .config_defaults import section
from .decoder import Decoder, Style, text_decoder
from .gemma import GEMMA4, gemma4_ffn_kinds

GEMMA4_UNIFIED = GEMMA4.but(
    ffn=lambda b, kind: gated(
        b, width=b.f.count("intermediate_size") * (2 if kind == "wide" else 1)
    ),
    ffn_kinds=gemma4_ffn_kinds,
    extra=None,
)


def gemma4_unified(f: Fields, t: Tensors) -> Decoder:
    """The whole model, or its text model where `architectures` names that alone."""
    text = section(f, "text_config")
    tied = f.flag("tie_word_embeddings")
    if f.texts("architectures") == ("Gemma4UnifiedForCausalLM",):
        return text_decoder(text, t, GEMMA4_UNIFIED)
    hidden = text.count("hidden_size")
    if f.has("vision_config"):
        seen = section(f, "vision_config")
        with t.scope("model.embed_vision.", part=Part.PROJECTOR):
            _pixels(seen, t, hidden)
    if f.has("audio_config"):
        heard = section(f, "audio_config")
        with t.scope("model.embed_audio.", part=Part.PROJECTOR):
            t.linear("embedding_projection", heard.count("audio_embed_dim"), hidden)
    return text_decoder(text, t, GEMMA4_UNIFIED, tied=tied, prefix="model.language_model.")


def _pixels(f: Fields, t: Tensors, hidden: int) -> None:
    """Patches merged to one, normed, projected, and given a learned row and column."""
    width = f.count("mm_embed_dim")
    side = f.count("patch_size") * f.count("pooling_kernel_size")
    t.add("pos_embedding", (f.count("mm_posemb_size"), 2, width), Role.EMBEDDING)
    t.norm("patch_ln1", 3 * side * side, True)
    t.linear("patch_dense", 3 * side * side, width, True)
    t.norm("patch_ln2", width, True)
    t.norm("pos_norm", width, True)
    t.linear("multimodal_embedder.embedding_projection", width, hidden)


STYLES: dict[str, Style] = {"gemma4_unified_text": GEMMA4_UNIFIED}
READERS = {"gemma4_unified": gemma4_unified}
