"""Model types whose class in transformers the runtime cannot take over, and why.

Said at plan time, without transformers; runtime/model_class.py asks the class itself before any
weight is read, and a test holds the two to each other for every type that the planner knows
(tests/runtime/test_families.py). Types that only the planner's layers tell apart (recurrent,
latent attention) are not listed again.
"""


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


_NO_CLASS = _types(
    "aria aya_vision blip blip-2 chameleon cohere2_vision cohere_compass cosmos3_edge "
    "deepseek_ocr2 deepseek_ocr2_text deepseek_vl deepseek_vl_hybrid diffusion_gemma "
    "ernie4_5_vl_moe ernie4_5_vl_moe_text evolla exaone4_5 florence2 glm46v glm4v glm4v_moe "
    "glm4v_moe_text glm4v_text glm5_next glm5_next_text glm_ocr glm_ocr_text glmga "
    "granite_docling hunyuan_vl hunyuan_vl_text idefics idefics2 idefics3 inkling2 "
    "inkling_mm_model instructblip instructblipvideo internvl kimi_k25 kosmos-2 kosmos-2.5 "
    "lfm2_vl lfm3_vl lighton_ocr llava llava_next llava_next_video llava_onevision minicpm_ocr "
    "minicpmv4_6 minicpmv4_7 minimax_m3_vl mistral3 mistral4 mistral_large4 mistral_large4_text "
    "mllama_text_model molmo2 muse_glimmer muse_glimmer_text muse_spark muse_spark_text ovis2 "
    "paddleocr_vl paddleocr_vl_text paligemma pi0 qianfan_ocr qwen2_5_omni_text "
    "qwen2_5_omni_thinker qwen2_5_vl qwen2_5_vl_text qwen2_audio qwen2_vl qwen2_vl_text "
    "qwen3_omni_moe_text qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe qwen3_vl_moe_text "
    "qwen3_vl_text shieldgemma2 smolvlm step3p5 step3p7 unlimited_ocr unlimited_ocr_text "
    "video_llama_3 video_llava vipllava voxtral"
)
"""In transformers, but not as a causal LM of text."""

_OWN_CODE = _types(
    "baichuan chatglm deci deepseek deepseek_ref deepseek_vl_v2 ernie4_5_moe_vl exaone grok "
    "hunyuan internlm internlm2 internvl_chat kimi_k2 kimi_k3 longcat_flash_ngram mimo minicpm "
    "minicpm_sala minicpmv minimax_m1 minimax_m3 minimax_text_01 nemotron-nas orion ouro phi-msft "
    "phi3_v phi4mm plamo2 qwen rwkv5 smallthinker stablelm_epoch step3p7_text"
)
"""Not in transformers: code of the model's own repository."""

_OWN_ATTENTION = _types(
    "biogpt bloom blt codegen falcon git gpt_neo gpt_neox_japanese gptj inkling2_text "
    "inkling_text mpt openai-gpt reformer stablelm xglm xlnet"
)
"""Attention that is not transformers' exchangeable one."""

_READS_CACHE = frozenset({"jetmoe", "doge"})
"""Attention that reads keys or values after the cache was updated."""


TEXT_ALONE = _types("llama4 qwen3_5 qwen3_5_moe")
"""Of a model with a vision tower, transformers' causal LM is the decoder alone."""


def is_own_code(model_type: str) -> bool:
    """Whether a known model type is code of its model's repository, which transformers lacks."""
    return model_type in _OWN_CODE


def why_not(model_type: str) -> str | None:
    """Why the runtime cannot run a known model type; None where nothing is known against it."""
    if model_type in _NO_CLASS:
        return f"transformers has no causal LM of text for {model_type}"
    if model_type in _OWN_CODE:
        return f"transformers does not hold {model_type}, which is code of the model's repository"
    if model_type in _OWN_ATTENTION:
        return f"the attention of {model_type} is not transformers' exchangeable one"
    if model_type in _READS_CACHE:
        return f"the attention of {model_type} reads its keys again after the cache has packed them"
    return None
