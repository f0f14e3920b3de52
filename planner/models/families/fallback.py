"""What can be said of a model type nobody here knows: as what it reads, and within which bounds.

A config that nests a text model is read by that; one with a latent rank as MLA; one with
Llama-like fields as Llama. Each says so, and opens the bounds that its assumption leaves.
Models without a decoder are refused.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import BadConfig
from ..config_fields import Fields
from ..spec import Bounds
from ..tensor_list import Tensors
from .config_defaults import facts_of, fields_of
from .decoder import Decoder, text_decoder
from .registry import style_of

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
LLAMA_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
)
# Where configs of several towers keep their text model (Qwen-Omni; InternVL's own; DeepSeek-VL).
TEXT_SECTIONS = (
    ("text_config",),
    ("thinker_config", "text_config"),
    ("llm_config",),
    ("language_config",),
)
LARGEST_TOWER = 6_500_000_000  # parameters: InternViT-6B is the largest published encoder


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


def read(f: Fields, t: Tensors) -> Decoder:
    """Read a config of an unknown model type. Raises BadConfig where it resembles nothing known."""
    for path in TEXT_SECTIONS:
        nested: Any = f.raw
        for name in path:
            nested = nested.get(name) if isinstance(nested, Mapping) else None
        if isinstance(nested, dict):
            return _nested(f, nested, ".".join(path), t)
    missing = [name for name in LLAMA_FIELDS if not f.has(name)]
    if missing:
        raise BadConfig(
            f"model_type {f.kind!r} is not known, and its config has no {missing[0]}, "
            "so it cannot be read as a Llama either",
            "`kvpareto profiles list` names the bundled models, docs/models.md the families",
        )
    family = _resembles(f)
    f.note(f"model_type {f.kind!r} is not known: read as {family} by its fields")
    style = style_of(family)
    assert style is not None  # families named below exist
    own = Fields(f.raw, kind=f.kind, path=f.path, aliases=facts_of(family).aliases, notes=f.notes)
    found = text_decoder(own, t, style)
    return replace(found, bounds=(_llama_bounds(f, t, found),))


def _resembles(f: Fields) -> str:
    if f.has("kv_lora_rank"):
        return "deepseek_v3" if f.has("n_routed_experts") else "minicpm3"
    if f.has("num_experts") and f.has("moe_intermediate_size"):
        return "qwen3_moe"
    if f.has("num_local_experts"):
        return "mixtral"
    return "llama"


def _nested(f: Fields, nested: dict[str, Any], path: str, t: Tensors) -> Decoder:
    kind = nested.get("model_type")
    kind = kind[:100] if isinstance(kind, str) else ""
    inner = fields_of(nested, kind or f.kind, path=f"{path}.", notes=f.notes)
    style = style_of(kind)
    found = read(inner, t) if style is None else text_decoder(inner, t, style)
    f.note(
        f"model_type {f.kind!r} is not known: its text model is planned, its other towers are not"
    )
    return replace(found, bounds=(*found.bounds, tower_bounds(f, t)))


def tower_bounds(f: Fields, t: Tensors) -> Bounds:
    """Parameters, where the towers beside the text model are not known."""
    text = sum(group.parameters for group in t.groups())
    return Bounds(
        "parameters",
        text,
        text + LARGEST_TOWER,
        f"the other towers of {f.kind} are unknown, and no published one is larger than 6.5 B",
    )


def _llama_bounds(f: Fields, t: Tensors, found: Decoder) -> Bounds:
    """Parameters, open for what a Llama-like file does not say: biases, norms, tied embeddings."""
    total, layers = sum(group.parameters for group in t.groups()), len(found.layers)
    head = found.vocab * found.hidden
    inner = f.count("intermediate_size")
    more = layers * (16 * found.hidden + 2 * inner) + (head if found.tied_embeddings else 0)
    less = 0 if found.tied_embeddings or f.has("tie_word_embeddings") else head
    return Bounds(
        "parameters",
        total - less,
        total + more,
        f"{f.kind} is unknown: biases, norms and tied embeddings are assumed to be Llama's",
    )
