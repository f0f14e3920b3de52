"""Further models of several towers, read as `multimodal` reads the others."""

from ..models.config_fields import Fields
from ..models.families.decoder import Decoder
from ..models.families.towers import vision
from ..models.families.towers import vision_recent as vision_more
from ..models.families.towers.multimodal import Towers, read_towers
from ..models.tensor_list import Tensors
from . import towers_more

MORE: dict[str, Towers] = {
    "qwen4_exp": Towers(vision.qwen3_vision, "model.visual.", causal_class="Qwen4ExpForCausalLM"),
    "glmga": Towers(vision_more.glm4v, "model.visual.", ties_with_text=True),
    "glm_ocr": Towers(towers_more.glm_ocr, "model.visual."),
    "glm5_next": Towers(towers_more.glm_ocr, "model.visual."),
    "lfm3_vl": Towers(towers_more.lfm3, projector=towers_more.lfm3_projector),
}


def read(f: Fields, t: Tensors) -> Decoder:
    return read_towers(MORE[f.kind], f, t)


READERS = dict.fromkeys(MORE, read)
