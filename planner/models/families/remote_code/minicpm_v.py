"""MiniCPM-V 2.5 to 4.5 in the code of its repositories: `minicpmv`.

The file is that of its text model, of a type that its version says, beside a SigLIP without head
and a resampler of one attention. Versions 4.6 and later have classes in transformers.
"""

from ...config_fields import Fields
from ...spec import Part, Role
from ...tensor_list import Tensors
from ..config_defaults import fields_of
from ..decoder import Decoder, text_decoder
from ..registry import style_of
from ..towers.vision import siglip_encoder
from ..unknown.not_planned import refuse

TEXTS = {"2.5": "llama", "2.6": "qwen2", "4": "llama", "4.0": "llama", "4.5": "qwen3"}


def minicpmv(f: Fields, t: Tensors) -> Decoder:
    """A tower, a resampler, and the text model that the file itself is of."""
    kind = TEXTS.get(str(f.raw.get("version")))
    style = style_of(kind) if kind is not None else None
    if kind is None or style is None:
        return refuse(f, t, "the text models of versions other than 2.5, 2.6, 4.0 and 4.5 differ")
    text = fields_of(f.raw, kind, notes=f.notes)
    raw = f.mapping("vision_config")
    if raw is None:
        raise f.missing("vision_config")
    vision = fields_of(raw, "siglip_vision_model", path="vision_config.", notes=f.notes)
    with t.scope("vpm.", part=Part.VISION):
        siglip_encoder(vision, t, vision.layers() - f.flag("drop_vision_last_layer"))
    with t.scope("resampler.", part=Part.PROJECTOR):
        _resampler(t, f.count("query_num"), vision.count("hidden_size"), text.count("hidden_size"))
    return text_decoder(text, t, style, prefix="llm.model.", head_prefix="llm.")


def _resampler(t: Tensors, queries: int, inputs: int, width: int) -> None:
    t.add("query", (queries, width), Role.OTHER)
    t.linear("kv_proj", inputs, width)
    t.linear("attn.in_proj", width, 3 * width, True)
    t.linear("attn.out_proj", width, width, True)
    for name in ("ln_q", "ln_kv", "ln_post"):
        t.norm(name, width, True)
    t.add("proj", (width, width), Role.LINEAR)


READERS = {"minicpmv": minicpmv}
