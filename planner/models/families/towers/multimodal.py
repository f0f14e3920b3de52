"""Models of several towers: a text model under `text_config` beside vision or audio encoders.

The class that `architectures` names is described, all its towers included; a file that holds
the text model's fields alone, flat, is read as the text model.
"""

from collections.abc import Callable

from ....light_dataclass import dataclass
from ...config_fields import Fields
from ...spec import Part, Role
from ...tensor_list import Tensors
from ..config_defaults import config_defaults_of, fields_of, section
from ..decoder import Decoder, text_decoder
from ..registry import style_of
from . import projectors, vision
from . import vision_recent as vision_more

Tower = Callable[[Fields, Tensors], None]
Projector = Callable[[Fields, Fields, Fields, Tensors], None]
"""(whole config, vision section, text section, tensors)"""


@dataclass(frozen=True)
class Towers:
    """How a family's towers are built and where they hang."""

    vision: Tower | None = None
    vision_name: str = "model.vision_tower."
    projector: Projector | None = None
    projector_name: str = "model.multi_modal_projector."
    text_name: str = "model.language_model."
    head_name: str = ""
    vision_type: str = ""
    text_type: str = ""
    section: str = "vision_config"
    part: Part = Part.VISION
    newline: bool = False
    """Whether a learned row separates an image's lines (LLaVA-NeXT)."""
    ties_with_text: bool = False
    """Whether the text section can tie the embeddings too, not the whole config alone."""
    causal_class: str = ""
    """Text-only class of the same model_type, which a config without `architectures` gets."""


IDEFICS = Towers(
    vision_more.idefics,
    "model.vision_model.",
    projectors.idefics_projector,
    "model.connector.",
    text_name="model.text_model.",
)
TOWERS: dict[str, Towers] = {
    "qwen2_vl": Towers(vision.qwen2_vision, "model.visual.", ties_with_text=True),
    "qwen2_5_vl": Towers(vision.qwen25_vision, "model.visual.", ties_with_text=True),
    "qwen3_vl": Towers(vision.qwen3_vision, "model.visual."),
    "qwen3_vl_moe": Towers(vision.qwen3_vision, "model.visual."),
    "qwen3_5": Towers(vision.qwen3_vision, "model.visual.", causal_class="Qwen3_5ForCausalLM"),
    "qwen3_5_moe": Towers(
        vision.qwen3_vision, "model.visual.", causal_class="Qwen3_5MoeForCausalLM"
    ),
    "gemma3": Towers(vision.siglip, projector=projectors.gemma3_projector),
    "paligemma": Towers(vision.siglip, projector=projectors.paligemma_projector),
    "llava": Towers(vision.image_encoder, projector=projectors.llava_projector),
    "llava_next": Towers(vision.image_encoder, projector=projectors.llava_projector, newline=True),
    "llava_onevision": Towers(
        vision.image_encoder, projector=projectors.llava_projector, newline=True
    ),
    "aya_vision": Towers(vision.image_encoder, projector=projectors.cohere_projector),
    "cohere2_vision": Towers(vision.image_encoder, projector=projectors.cohere_projector),
    "internvl": Towers(vision_more.internvl, projector=projectors.internvl_projector),
    "idefics3": IDEFICS,
    "smolvlm": IDEFICS,
    "lfm2_vl": Towers(vision_more.siglip2, projector=projectors.lfm2_projector),
    "qwen2_audio": Towers(
        vision_more.whisper,
        "model.audio_tower.",
        projectors.qwen2_audio_projector,
        section="audio_config",
        part=Part.AUDIO,
    ),
    "voxtral": Towers(
        vision_more.whisper,
        "model.audio_tower.",
        projectors.voxtral_projector,
        section="audio_config",
        part=Part.AUDIO,
    ),
    "mistral3": Towers(vision.pixtral, projector=projectors.mistral3_projector),
    "llama4": Towers(
        vision_more.llama4,
        "vision_model.",
        vision_more.llama4_projector,
        "multi_modal_projector.",
        text_name="language_model.model.",
        head_name="language_model.",
        causal_class="Llama4ForCausalLM",
    ),
    "glm4v": Towers(vision_more.glm4v, "model.visual.", ties_with_text=True),
    "glm4v_moe": Towers(vision_more.glm4v, "model.visual.", ties_with_text=True),
    "glm46v": Towers(vision_more.glm4v, "model.visual.", ties_with_text=True),
    "kimi_k25": Towers(
        vision_more.kimi,
        projector=vision_more.kimi_projector,
        projector_name="model.mm_projector.",
    ),
    "minimax_m3_vl": Towers(
        vision_more.minimax_m3, projector=vision_more.minimax_m3_projector, ties_with_text=True
    ),
    "step3p7": Towers(
        vision_more.step,
        "model.vision_model.",
        vision_more.step_projector,
        "model.",
        text_type="step3p5",
    ),
}


def read(f: Fields, t: Tensors) -> Decoder:
    """All towers of a multimodal config."""
    return read_towers(TOWERS[f.kind], f, t)


def read_towers(towers: Towers, f: Fields, t: Tensors) -> Decoder:
    """The towers of a config's model type, and the decoder of its text."""
    text = _text(towers, f)
    style = style_of(text.kind)
    if style is None:
        raise f.wrong("text_config", text.kind, "a text model this version knows")
    if _text_alone(f, towers):
        f.note("only the text model is described: the config names no class with other towers")
        return text_decoder(text, t, style)
    tied = _tied(towers, f, text)
    if towers.vision is not None:
        seen = section(f, towers.section, towers.vision_type)
        with t.scope(towers.vision_name, part=towers.part):
            towers.vision(seen, t)
        if towers.projector is not None:
            with t.scope(towers.projector_name, part=Part.PROJECTOR):
                towers.projector(f, seen, text, t)
        if towers.newline:
            t.add("model.image_newline", (text.count("hidden_size"),), Role.OTHER)
    return text_decoder(
        text, t, style, tied=tied, prefix=towers.text_name, head_prefix=towers.head_name
    )


def _tied(towers: Towers, f: Fields, text: Fields) -> bool:
    """Whether the head is the token table.

    Where the file says nothing around the text section, some classes tie and their text model's
    does not. Published files that are so have a head (Mistral Small 3.1, InternVL3), and
    transformers keeps a head that the checkpoint has: it is counted.
    """
    around, inside = f.flag("tie_word_embeddings"), text.flag("tie_word_embeddings")
    if around and not inside and not f.has("tie_word_embeddings"):
        f.note(
            f"tie_word_embeddings is not in the config of {f.kind}: a head is counted, as "
            f"{text.kind or 'the text model'} has one; without one it is smaller by as much"
        )
        return False
    return around or (towers.ties_with_text and inside)


def _text_alone(f: Fields, towers: Towers) -> bool:
    if "vision_config" not in f.raw and "text_config" not in f.raw and f.has("hidden_size"):
        return True
    named = f.texts("architectures") or ()
    return bool(towers.causal_class) and named[:1] in ((), (towers.causal_class,))


def _text(towers: Towers, f: Fields) -> Fields:
    """The text model's fields, nested or (older files) flat."""
    if f.mapping("text_config") is None and f.has("hidden_size"):
        kind = towers.text_type or config_defaults_of(f.kind).sections["text_config"]["model_type"]
        return fields_of(f.raw, kind, notes=f.notes)
    return section(f, "text_config", towers.text_type)


READERS = dict.fromkeys(TOWERS, read)
