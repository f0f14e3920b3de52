"""Every decoder style by model type; its module is imported only when it is asked for."""

from importlib import import_module

from .decoder import Style

# Text sections that are another family's decoder under a name of their own.
SAME = {
    "deepseek_ref": "deepseek_v4",
    "stablelm_epoch": "stablelm",
    "step3p7_text": "step3p5",
    "minimax_m3": "minimax_m3_vl_text",
    "minimax_text_01": "minimax",
    "minimax_m1": "minimax",
    "glm4v_moe_text": "glm4_moe",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_5_omni_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_omni_moe_text": "qwen3_moe",
    "hunyuan_vl_text": "hunyuan_v1_dense",
    "paddleocr_vl_text": "ernie4_5",
}
# Which module holds which model types, so that asking for one imports no other's.
_STYLES = {
    "llama": (
        "llama glm_ocr_text internlm3 iquestcoder arcee apertus bitnet cohere cohere2 cwm "
        "diffllama ernie4_5 exaone4 gemma gemma2 gemma3_text vaultgemma glm glm4 glm4v_text "
        "granite granite_swa helium hunyuan_v1_dense jais2 ministral ministral3 mistral nanochat "
        "nemotron olmo olmo2 olmo3 phi phi3 qwen2 qwen3 seed_oss smollm3 starcoder2"
    ),
    "moe": (
        "afmoe dots1 ernie4_5_moe exaone_moe flex_olmo glm4_moe gpt_oss granitemoe "
        "granitemoeshared hunyuan_v1_moe hy_v3 mimo_v2_flash minimax_m2 mixtral olmoe phimoe "
        "qwen2_moe qwen3_moe solar_open"
    ),
    "deepseek": (
        "deepseek_v2 deepseek_v3 kimi_k2 deepseek_v32 glm_moe_dsa glm4_moe_lite minicpm3 "
        "youtu mistral4"
    ),
    "hybrids.hybrid": (
        "qwen3_next qwen3_5_text qwen3_5_moe_text granitemoehybrid bamba falcon_h1 jamba lfm2 "
        "lfm2_moe"
    ),
    "hybrids.nemotron_h": ("nemotron_h"),
    "gpt": ("gpt2 gpt-sw3 gpt_bigcode gpt_neo gptj codegen gpt_neox bloom mpt opt falcon"),
    "gemma": ("gemma4_text gemma3n_text"),
    "deepseek_v4": ("deepseek_v4"),
    "hybrids.state_space": ("mamba falcon_mamba mamba2 rwkv"),
    "hybrids.olmo_hybrid_zamba": ("minimax kimi_linear olmo_hybrid"),
    "moe_variants": (
        "llama4_text cohere2_moe laguna mellum kolibri1 axk1 granitemoe_swa hyperclovax "
        "stablelm aria_text"
    ),
    "remote_code.early": ("qwen baichuan internlm internlm2 minicpm orion deepseek"),
    "remote_code.variants": ("rwkv5"),
    "mllama": "mllama_text_model step3p5 minimax_m3_vl_text",
    "gemma_unified": "gemma4_unified_text",
    "hybrids.delta_latent": "glm5_next_text bailing_hybrid",
    "hybrids.griffin": "recurrent_gemma",
    "hybrids.zaya": "zaya",
    "hybrids.lfm3": "lfm3",
    "hybrids.qwen4": "qwen4_exp_text",
    "sparse_latent": "hy_v4 axk2 dots3_note_text",
    "towers.text_of_images": (
        "muse_glimmer_text muse_spark_text mistral_large4_text ernie4_5_vl_moe_text "
        "unlimited_ocr_text deepseek_ocr2_text cohere_compass_text"
    ),
    "gpt_recent": "biogpt xglm ctrl gpt_neox_japanese persimmon",
    "moe_recent": "flint beam jetmoe doge inkling_text",
}
_READERS = {
    "towers.multimodal": (
        "llava_next llava_onevision aya_vision cohere2_vision internvl idefics3 smolvlm lfm2_vl "
        "qwen2_audio voxtral "
        "qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen3_5 qwen3_5_moe gemma3 paligemma llava "
        "mistral3 llama4 glm4v glm4v_moe glm46v kimi_k25 minimax_m3_vl step3p7"
    ),
    "gemma": ("gemma4"),
    "hybrids.olmo_hybrid_zamba": ("zamba2"),
    "remote_code.longcat": "longcat_flash longcat_flash_ngram",
    "remote_code.early": ("phi-msft chatglm exaone"),
    "remote_code.variants": ("mimo nemotron-nas deci phi3_v"),
    "mllama": "mllama kimi_k3 phi4mm phi4_multimodal",
    "gemma_unified": "gemma4_unified",
    "sparse_latent": "dots3_note",
    "hybrids.zamba": "zamba",
    "remote_code.looped": "hrm_text ouro",
    "remote_code.hybrid": "plamo2 minicpm_sala",
    "remote_code.moe": "hunyuan grok git deepseek_vl_v2",
    "unknown.not_planned": (
        "granite_docling inkling_mm_model molmo2 "
        "gemma4_assistant gemma4_unified_assistant blip blip-2 instructblip instructblipvideo "
        "chameleon emu3 florence2 idefics kosmos-2 kosmos-2.5 evolla diffusion_gemma pi0 moshi "
        "blt openai-gpt xlnet reformer deepseek_vl_hybrid cosmos3_edge moss_transcribe_diarize "
        "inkling2 inkling2_text"
    ),
    "towers.multimodal_recent": (
        "qwen4_exp cohere_compass glmga glm_ocr glm5_next lfm3_vl hunyuan_vl got_ocr2 "
        "unlimited_ocr deepseek_ocr2 mistral_large4 muse_glimmer muse_spark ernie4_5_vl_moe "
        "idefics2 aria video_llama_3 vipllava llava_next_video deepseek_vl paddleocr_vl exaone4_5 "
        "minicpmv4_6 minicpmv4_7 fuyu video_llava minicpm_ocr lighton_ocr qianfan_ocr "
        "shieldgemma2 ovis2 qwen2_5_omni_thinker qwen3_omni_moe_thinker"
    ),
}


def _by_type(table: dict[str, str]) -> dict[str, str]:
    return {name: module for module, names in table.items() for name in names.split()}


STYLE_MODULES = _by_type(_STYLES)
READER_MODULES = _by_type(_READERS)


def style_of(model_type: str) -> Style | None:
    """The decoder style of a text model type, or None."""
    name = SAME.get(model_type, model_type)
    module = STYLE_MODULES.get(name)
    if module is None:
        return None
    style: Style = import_module(f".{module}", __package__).STYLES[name]
    return style
