"""Further models of several towers, read as `multimodal` reads the others."""

from ...config_fields import Fields
from ...spec import Part
from ...tensor_list import Tensors
from ..config_defaults import section
from ..decoder import Decoder, text_decoder
from ..gpt_recent import STYLES as OLD
from . import images as towers_images
from . import images_recent as towers_more
from . import ocr, omni, projectors, vision
from . import projectors_recent as projectors_more
from . import vision_recent as vision_more
from .multimodal import Tower, Towers, read_towers

PERSIMMON = OLD["persimmon"]
MINICPM = Towers(
    omni.minicpm,
    projector=omni.minicpm_merger,
    projector_name="model.merger.",
)
MORE: dict[str, Towers] = {
    "qwen4_exp": Towers(vision.qwen3_vision, "model.visual.", causal_class="Qwen4ExpForCausalLM"),
    "cohere_compass": Towers(vision.qwen3_vision, "model.visual."),
    "glmga": Towers(vision_more.glm4v, "model.visual.", ties_with_text=True),
    "glm_ocr": Towers(towers_more.glm_ocr, "model.visual."),
    "glm5_next": Towers(towers_more.glm_ocr, "model.visual."),
    "lfm3_vl": Towers(towers_more.lfm3, projector=towers_more.lfm3_projector),
    "hunyuan_vl": Towers(towers_images.hunyuan_vision),
    "got_ocr2": Towers(towers_images.sam_alone, projector=towers_images.got_projector),
    "unlimited_ocr": Towers(
        ocr.deep_encoder, projector=towers_images.ocr_projector, projector_name="model."
    ),
    "deepseek_ocr2": Towers(
        ocr.deep_encoder_2, projector=towers_images.ocr2_projector, projector_name="model."
    ),
    "mistral_large4": Towers(vision.pixtral, projector=projectors.mistral3_projector),
    "muse_glimmer": Towers(
        towers_images.muse, projector=towers_images.muse_projector, projector_name="model."
    ),
    "muse_spark": Towers(
        towers_images.muse, projector=towers_images.muse_projector, projector_name="model."
    ),
    "ernie4_5_vl_moe": Towers(
        towers_images.ernie,
        projector=towers_images.ernie_resampler,
        projector_name="model.resampler_model.",
    ),
    "idefics2": Towers(
        vision_more.idefics,
        "model.vision_model.",
        projectors_more.idefics2_connector,
        "model.connector.",
        text_name="model.text_model.",
    ),
    "aria": Towers(vision_more.idefics, projector=projectors_more.aria_projector),
    "video_llama_3": Towers(
        towers_images.video_llama,
        "model.vision_model.",
        towers_images.readout,
        "model.projector.",
    ),
    "vipllava": Towers(vision.image_encoder, projector=towers_images.vip_projector),
    "llava_next_video": Towers(
        vision.image_encoder, projector=projectors.llava_projector, newline=True
    ),
    "deepseek_vl": Towers(
        vision.image_encoder, "model.vision_model.", towers_images.aligner, "model.aligner."
    ),
    "paddleocr_vl": Towers(
        vision_more.idefics,
        "model.visual.vision_model.",
        towers_images.paddle_projector,
        "model.projector.",
    ),
    "video_llava": Towers(towers_images.image_and_video, "model.", projectors.llava_projector),
    "exaone4_5": Towers(towers_images.exaone, "model.visual."),
    "minicpmv4_6": MINICPM,
    "minicpmv4_7": MINICPM,
    "minicpm_ocr": MINICPM,
    "lighton_ocr": Towers(
        vision.pixtral,
        "model.vision_encoder.",
        omni.lighton_projector,
        "model.vision_projection.",
    ),
    "qianfan_ocr": Towers(omni.qianfan, projector=projectors.internvl_projector),
    "shieldgemma2": Towers(vision.siglip, projector=projectors.gemma3_projector),
    "ovis2": Towers(omni.ovis, projector=omni.ovis_words, projector_name="model."),
    "qwen2_5_omni_thinker": Towers(omni.omni_vision, "model.visual."),
    "qwen3_omni_moe_thinker": Towers(omni.omni3_vision, "model.visual."),
}
# Towers that hear, under `audio_config`.
AUDIO_TOWERS: dict[str, Tower] = {
    "qwen2_5_omni_thinker": omni.omni_audio,
    "qwen3_omni_moe_thinker": omni.omni3_audio,
    "muse_spark": omni.muse_audio,
}


def fuyu(f: Fields, t: Tensors) -> Decoder:
    """Fuyu: Persimmon, and patches projected straight into its stream."""
    text = section(f, "text_config", "persimmon")
    patch = f.count("patch_size")
    with t.scope("model.", part=Part.PROJECTOR):
        inputs = patch * patch * f.count("num_channels")
        t.linear("vision_embed_tokens", inputs, text.count("hidden_size"), True)
    tied = f.flag("tie_word_embeddings")
    return text_decoder(text, t, PERSIMMON, tied=tied, prefix="model.language_model.")


def read(f: Fields, t: Tensors) -> Decoder:
    ears = AUDIO_TOWERS.get(f.kind)
    if ears is not None:
        with t.scope("model.audio_tower.", part=Part.AUDIO):
            ears(section(f, "audio_config"), t)
    return read_towers(MORE[f.kind], f, t)


READERS = {**dict.fromkeys(MORE, read), "fuyu": fuyu}
