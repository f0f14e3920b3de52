"""InternVL 1.5 to 3.5 in the code of its repositories: `internvl_chat`.

transformers holds the same model as `internvl`, with its sections under other names. The text
model is any of several, whole and under its own type in `llm_config`.
"""

from ...config_fields import Fields
from ...read_keys import ReadKeys
from ...spec import Part
from ...tensor_list import Tensors
from ..config_defaults import fields_of
from ..decoder import Decoder, text_decoder
from ..registry import style_of
from ..towers.projectors import internvl_projector
from ..towers.vision_recent import internvl


def internvl_chat(f: Fields, t: Tensors) -> Decoder:
    """InternViT, a projector that folds patches, and the text model of `llm_config`."""
    raw = f.mapping("llm_config")
    if raw is None:
        raise f.missing("llm_config")
    kind = raw.get("model_type")
    style = style_of(kind) if isinstance(kind, str) else None
    if style is None:
        raise f.wrong("llm_config.model_type", kind, "a text model this version knows")
    text = fields_of(raw, str(kind), path="llm_config.", notes=f.notes)
    given = ReadKeys(f.mapping("vision_config") or {})
    seen = given.changed(
        attention_bias=given.get("qkv_bias", True),
        use_qk_norm=given.get("qk_normalization", False),
    )
    vision = fields_of(seen, "internvl_vision", path="vision_config.", notes=f.notes)
    with t.scope("vision_model.", part=Part.VISION):
        internvl(vision, t)
    with t.scope("mlp1.", part=Part.PROJECTOR):
        internvl_projector(f, vision, text, t)
    return text_decoder(
        text, t, style, prefix="language_model.model.", head_prefix="language_model."
    )


READERS = {"internvl_chat": internvl_chat}
