"""ERNIE 4.5 VL in the code of its repositories: `ernie4_5_moe_vl`.

transformers holds the same model as `ernie4_5_vl_moe`, with a section for its text and other names
in that of its tower.
"""

from ...config_fields import Fields
from ...read_keys import ReadKeys
from ...spec import Part
from ...tensor_list import Tensors
from ..config_defaults import fields_of
from ..decoder import Decoder, text_decoder
from ..registry import style_of
from ..towers.images import ernie, ernie_resampler

TEXT, VISION = "ernie4_5_vl_moe_text", "ernie4_5_vl_moe_vision"


def ernie_moe_vl(f: Fields, t: Tensors) -> Decoder:
    """A tower, what merges its patches in space and time, and a text model that the file itself
    is of."""
    style = style_of(TEXT)
    assert style is not None
    layers = f.count("num_hidden_layers")
    first, last = (
        _of_both(f, f"moe_layer_{end}_index", default)
        for end, default in (("start", 1), ("end", layers - 1))
    )
    sparse = ["sparse" if first <= i <= last else "dense" for i in range(layers)]
    text = fields_of(f.changed(mlp_layer_types=sparse).raw, TEXT, notes=f.notes)
    tower = f.mapping("vision_config") or {}
    seen = fields_of(ReadKeys(tower), VISION, path="vision_config.", notes=f.notes)
    vision = seen.changed(
        intermediate_size=seen.count("hidden_size") * seen.count("mlp_ratio", 4),
        temporal_merge_size=f.count("temporal_conv_size", 2),
    )
    with t.scope("vision_model.", part=Part.VISION):
        ernie(vision, t)
    with t.scope("model.resampler_model.", part=Part.PROJECTOR):
        ernie_resampler(f, vision, text, t)
    return text_decoder(text, t, style)


def _of_both(f: Fields, name: str, default: int) -> int:
    """One number for the experts of text and of images: it is said of each. An end beyond the
    layers is their last."""
    last = f.count("num_hidden_layers") - 1
    given = f.counts(name, low=0) if isinstance(f.raw.get(name), list) else None
    values = {min(x, last) for x in given or (f.count(name, default, low=0),)}
    if len(values) > 1:
        raise f.wrong(name, list(given or ()), "one layer for text and images alike")
    return values.pop()


READERS = {"ernie4_5_moe_vl": ernie_moe_vl}
