"""llama.cpp's rule of which tensor of a model gets which type, for Q4_K_M and every other mix.

A mix quantizes most tensors to its own type and the sensitive ones to a finer one: values'
projections, the FFN's way down, the output head; more bits in the first and last eighth of the
layers and in every third between. Norms, biases, routers and small state-space tensors stay as they
are. The rule is that of llama-quantize (llama.cpp, src/llama-quant.cpp: llama_tensor_get_type,
tensor_allows_quantization, tensor_type_fallback; as of build 11549). Builds before 2026 gave fused
projections of queries, keys and values (Phi-3, Falcon, GPT-2) another type.
"""

from ..light_dataclass import dataclass
from .gguf_types import GGUF_TYPES, MIXES

_TINY = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")
_SMALL_HEAD = (*_TINY, "IQ3_XXS")
_FALLBACK = {
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0", "Q2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
"""Types for rows that are no multiple of 256; that of every IQ type is IQ4_NL."""
_EIGHT_EXPERTS_OUTPUT = (
    "Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M",
    "IQ4_XS",
)  # fmt: skip
_OUTPUT = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
_VALUES = ("attn_v", "attn_qkv", "attn_kv_b")


@dataclass(frozen=True, slots=True)
class MixFacts:
    """What the rule asks of a model.

    `layers`: blocks of the file. `value_tensors`: tensors of `attn_v`, `attn_qkv` and `attn_kv_b`.
    `gqa`: query heads to a KV head in the first layer (0: no KV heads). `tied`: no output tensor.
    """

    layers: int
    value_tensors: int
    gqa: int
    experts: int = 0
    tied: bool = False
    falcon: bool = False
    seventy_b: bool = False
    """Whether llama.cpp calls the model a 70B: Llama or Qwen2 of 80 layers."""
    imatrix: bool = True
    """Made with an importance matrix; the mixes below three bits exist only so."""


def tensor_type(mix: str, kind: str, index: int, columns: int, facts: MixFacts) -> str:
    """The type of one tensor with rows of `columns`.

    `kind`: "output", "token_embd", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_kv_b",
    "attn_output", "ffn_gate", "ffn_up", "ffn_down", "experts" followed by one of the last three,
    or "other". `index`: which of its kind it is; of a model with experts, its layer.
    """
    default = MIXES[mix].name
    if not MIXES[mix].quantized:
        return default
    role = kind.removeprefix("experts ")
    chosen = _chosen(mix, default, role, kind != role, index, columns, facts)
    return _fitting(chosen, columns)


def _fitting(chosen: str, columns: int) -> str:
    """`chosen`, or what llama.cpp takes where a row is no whole number of its blocks."""
    if columns % GGUF_TYPES[chosen].block == 0:
        return chosen
    other = _FALLBACK.get(chosen, "IQ4_NL" if chosen.startswith("IQ") else "F16")
    return other if columns % GGUF_TYPES[other].block == 0 else "F16"


def _chosen(
    mix: str, default: str, role: str, stacked: bool, index: int, columns: int, facts: MixFacts
) -> str:
    if role == "output" or (role == "token_embd" and facts.tied):
        return _head(mix, default, columns, facts)
    if mix == "MXFP4_MOE":
        return "MXFP4" if stacked else "Q8_0"
    if role == "token_embd":
        if mix in ("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"):
            return "Q2_K"
        if mix in ("IQ2_S", "IQ2_M", "IQ3_XXS"):
            return "IQ3_S"
        return "Q4_K" if mix in ("TQ1_0", "TQ2_0", "Q2_0") else default
    if mix in _TINY:
        return _tiny(mix, default, role, index, facts)
    if role in _VALUES:
        return _values(mix, default, index, facts)
    if role in ("attn_k", "attn_q"):
        if role == "attn_k" and facts.experts == 8:
            return "Q8_0"
        return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(mix, default)
    if role == "ffn_down":
        return _down(mix, default, index, facts)
    if role == "attn_output":
        if facts.falcon:
            return "Q4_K" if mix == "Q3_K_L" else default
        if facts.experts == 8:
            return "Q5_K" if mix in _EIGHT_EXPERTS_OUTPUT else default
        return _OUTPUT.get(mix, default)
    if role in ("ffn_gate", "ffn_up") and mix == "IQ3_XS":
        middle = facts.layers // 8 <= index < 7 * facts.layers // 8
        return "IQ3_XXS" if middle else default
    return default


def _more_bits(index: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    eighth = layers // 8
    return index < eighth or index >= 7 * layers // 8 or (index - eighth) % 3 == 2


def _head(mix: str, default: str, columns: int, facts: MixFacts) -> str:
    if mix == "MXFP4_MOE" or facts.falcon or columns % GGUF_TYPES[default].block:
        return "Q8_0"
    if mix in _SMALL_HEAD:
        return "Q5_K"
    return default if default == "Q8_0" else "Q6_K"


def _tiny(mix: str, default: str, role: str, index: int, facts: MixFacts) -> str:
    """Mixes below three bits."""
    wide = mix in ("IQ2_S", "IQ2_M")
    if role in _VALUES:
        return "Q4_K" if facts.gqa >= 4 or facts.experts >= 4 else "IQ3_S" if wide else "Q2_K"
    if role == "attn_k" and facts.experts == 8:
        return "Q4_K"
    if role == "ffn_down" and index < facts.layers // 8:
        return "IQ3_S" if wide else "Q2_K"
    if role == "attn_output":
        if facts.experts == 8:
            return "Q5_K"
        return "IQ2_XXS" if mix in ("IQ1_S", "IQ1_M") else "IQ3_S" if wide else default
    return default


def _values(mix: str, default: str, index: int, facts: MixFacts) -> str:
    grouped = facts.gqa >= 4
    chosen = default
    if mix == "Q2_K":
        chosen = "Q4_K" if grouped else "Q3_K"
    elif mix == "IQ3_XXS":
        chosen = "Q4_K" if grouped else "IQ3_XXS" if facts.imatrix else "IQ3_S"
    elif mix == "IQ3_M" or (mix in ("Q2_K_S", "IQ3_XS", "IQ3_S") and grouped):
        chosen = "Q4_K"
    elif mix == "Q3_K_M":
        chosen = "Q5_K" if index < 2 else "Q4_K"
    elif mix == "Q3_K_L" or (mix in ("IQ4_NL", "IQ4_XS") and grouped):
        chosen = "Q5_K"
    elif mix in ("Q4_K_M", "Q5_K_M") and _more_bits(index, facts.value_tensors):
        chosen = "Q6_K"
    elif mix == "Q4_K_S" and index < 4:
        chosen = "Q5_K"
    if facts.seventy_b and chosen in ("Q3_K", "Q4_K"):
        chosen = "Q5_K"
    return "Q8_0" if facts.experts == 8 else chosen


def _down(mix: str, default: str, index: int, facts: MixFacts) -> str:
    first = index < facts.layers // 8
    more = _more_bits(index, facts.layers)
    if mix == "Q2_K":
        return "Q3_K"
    if mix == "Q2_K_S":
        return "Q4_K" if first else default
    if mix == "Q3_K_M":
        if index < facts.layers // 16:
            return "Q5_K"
        return "Q4_K" if not facts.falcon or more else "Q3_K"
    if mix == "IQ3_M":
        return "Q4_K" if first or (facts.experts == 8 and more) else default
    if mix == "Q3_K_L":
        return "Q4_K" if facts.falcon else "Q5_K"
    if mix == "Q4_K_M" and facts.falcon:
        return "Q6_K" if index < facts.layers // 16 else "Q5_K" if more else "Q4_K"
    if mix in ("Q4_K_M", "Q5_K_M"):
        return "Q6_K" if more else default
    if mix == "Q4_K_S" and not facts.falcon:
        return "Q5_K" if first else default
    if mix in ("Q4_0", "Q5_0") and first and facts.imatrix:
        return {"Q4_0": "Q4_1", "Q5_0": "Q5_1"}[mix]
    if mix in ("IQ4_NL", "IQ4_XS") and first and not facts.imatrix:
        return "Q5_K"
    if mix == "IQ3_XXS" and not facts.imatrix:
        return "Q4_K" if first else "Q3_K"
    return default
