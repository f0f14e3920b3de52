"""Model types nobody here knows: what is no decoder is refused, the rest is read by fallback.py,
which is imported only then.
"""

from collections.abc import Mapping
from typing import Any

from ....errors import BadConfig
from ...config_fields import Fields
from ...spec import Bounds
from ...tensor_list import Tensors
from .tower_sizes import largest_towers

# Encoders, and encoders with a decoder: what keys and values they hold does not grow with output,
# or not alone; neither is a decoder-only plan.
_ENCODERS = frozenset(
    {
        "albert",
        "bert",
        "bert-generation",
        "big_bird",
        "camembert",
        "canine",
        "clip",
        "convbert",
        "data2vec-text",
        "deberta",
        "deberta-v2",
        "distilbert",
        "dinov2",
        "electra",
        "ernie",
        "esm",
        "flaubert",
        "fnet",
        "funnel",
        "ibert",
        "layoutlm",
        "layoutlmv2",
        "layoutlmv3",
        "longformer",
        "luke",
        "megatron-bert",
        "mobilebert",
        "modernbert",
        "mpnet",
        "nezha",
        "nomic_bert",
        "nystromformer",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roc_bert",
        "roformer",
        "siglip",
        "splinter",
        "squeezebert",
        "tapas",
        "vit",
        "wav2vec2",
        "xlm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
        "yoso",
    }
)
_SEQ2SEQ = frozenset(
    {
        "bart",
        "bigbird_pegasus",
        "blenderbot",
        "blenderbot-small",
        "encoder-decoder",
        "fsmt",
        "led",
        "longt5",
        "m2m_100",
        "marian",
        "mbart",
        "mt5",
        "mvp",
        "nllb-moe",
        "pegasus",
        "pegasus_x",
        "plbart",
        "prophetnet",
        "speech_to_text",
        "speech-encoder-decoder",
        "switch_transformers",
        "t5",
        "t5gemma",
        "t5gemma2",
        "trocr",
        "udop",
        "umt5",
        "vision-encoder-decoder",
        "whisper",
    }
)
_DIFFUSION = frozenset({"llada", "llada_moe", "dream"})


def refuse_encoders(config: Mapping[str, Any], model_type: str) -> None:
    """Raise BadConfig for a model that is not a decoder."""
    if model_type in _SEQ2SEQ or config.get("is_encoder_decoder") is True:
        raise BadConfig(
            f"{model_type} has an encoder and a decoder; only decoder-only models are planned",
            "choose a decoder-only model, such as Qwen/Qwen2.5-7B-Instruct",
        )
    if model_type in _ENCODERS:
        raise BadConfig(
            f"{model_type} is an encoder: it generates nothing, so it has no KV cache to plan",
            "choose a decoder-only model, such as Qwen/Qwen2.5-7B-Instruct",
        )
    if model_type.lower() in _DIFFUSION:
        raise BadConfig(
            f"{model_type} is a masked diffusion model: it fills all places in at once, and its "
            "attention keeps no KV cache to plan",
            "choose a decoder-only model, such as Qwen/Qwen2.5-7B-Instruct",
        )


def tower_bounds(f: Fields, t: Tensors, hidden: int) -> Bounds:
    """Parameters, where the towers beside the text model, `hidden` wide, are not known."""
    text = sum(group.parameters for group in t.groups())
    most, why = largest_towers(f.kind, f.raw, hidden)
    because = f"the other towers of {f.kind} are unknown, and {why}"
    return Bounds("parameters", text, text + most, because)
