"""How much noise formats with names add: GGUF's mixes and blocks, and those of other engines.

KV formats enter the noise model as ours do, by the bits of the asymmetric format over the same
block that is as far from normal values (mean squared error of rounding; tests/planner/accuracy/
test_named_noise.py repeats it). A block without a minimum loses a part of a bit: 3.87 for q4_0,
where q4_1 has 4. Keys that are not rotated have offsets, at which it loses about half a bit more.
llama.cpp rotates quantized keys and values by default where a head is a multiple of 64.

Weight mixes enter by the KL divergence from 16 bits that llama.cpp's authors published for Llama
3 8B (profiles/published/gguf_kl.csv). What they lose of MMLU (gguf_mmlu.csv: the same model, 22
mixes) is proportional to it from Q4_K_M to Q2_K, and grows faster beyond, where the model breaks.
4-bit AWQ is where its rows and that line meet; from there to 8-bit integers the published fit's own
fall holds. The result is a number of bits on the scale of `formula.weight_noise`: 4 is AWQ, 8 is
int8 by row.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ... import profiles
from ..formats import named
from ..formats.code_tables import CODED
from ..light_dataclass import dataclass
from ..models.spec import ModelSpec
from .formula import WEIGHTS_BELOW_4, Floats, FormatArrays

ROTATED_HEADS = 64
"""llama.cpp rotates heads that are a multiple of this."""
NO_MINIMUM = 0.5
"""Bits that keys with offsets lose in a block without a minimum: the noise doubles at one standard
deviation of offset, and quadruples at two."""


@dataclass(frozen=True, slots=True)
class KVNoise:
    """`bits`: of the asymmetric format over `group` channels (0: the head) with the same error on
    normal values. `minimum`: blocks keep an offset. `rotates`: the engine rotates, "heads" where
    the head's width allows it, "always" or "" never."""

    bits: float
    group: int = 32
    minimum: bool = True
    rotates: str = ""


KV_NOISE = {
    **dict.fromkeys(("f32", "f16", "bf16"), KVNoise(16.0)),
    "q8_0": KVNoise(7.78, minimum=False, rotates="heads"),
    "q5_1": KVNoise(5.0, rotates="heads"),
    "q5_0": KVNoise(4.83, minimum=False, rotates="heads"),
    "q4_1": KVNoise(4.0, rotates="heads"),
    "q4_0": KVNoise(3.87, minimum=False, rotates="heads"),
    "iq4_nl": KVNoise(4.01, minimum=False, rotates="heads"),
    # Floats: their error is relative, so that neither group nor offset matters much.
    "fp8": KVNoise(5.5),
    "fp8_e5m2": KVNoise(4.54),
    "fp8_per_token_head": KVNoise(5.64),
    "nvfp4": KVNoise(3.74),
    "mxfp4": KVNoise(3.52),
    "int8_per_token_head": KVNoise(7.86, group=0, minimum=False),
    "int4_per_token_head": KVNoise(3.99, group=0, rotates="always"),
}

_AWQ_KL = 0.03
"""KL divergence at which a mix is worth 4-bit AWQ: near q4_K_S."""
_INT8_KL = 0.0025
"""That of int8 by row: between q8_0, whose scales are by 32, and q6_K."""
_BREAKS, _BREAKING = 0.8, 3.0
"""Divergence beyond which the noise grows faster than it, and by which power: MMLU keeps 46 % at
0.81 (IQ2_XXS), 9 % at 1.4 (IQ1_M) and 4 % at 2.3 (IQ1_S)."""
_OTHER_KL = {"mxfp4": 0.072, "TQ1_0": 2.25, "TQ2_0": 2.25}
"""No row has them: MXFP4 as q4_0, whose scales are as coarse; ternary types as the worst row, which
a model not trained for them does not survive."""
_OTHER_BITS = {"fp8": 8.0, "int8": 8.0, "gptq8": 8.5, "awq": 4.0, "gptq4": 3.9, "nf4": 3.9} | {
    "nvfp4": 4.0
}
_FEWER_BITS = {2: "IQ1_S", 3: "Q2_K"}
"""What a checkpoint quantized in fewer than 4 bits afterwards (GPTQ, MLX, HQQ) is taken for: no row
has one, and coarse scales cost it more than a GGUF mix of its bits, so it is a mix of fewer."""
TRAINED_SO = ("bitnet",)
"""Methods whose models never had more bits."""
RELEASED = "mxfp4"


def with_names(
    formats: FormatArrays, head_dim: int, pairs: Sequence[tuple[str, str]]
) -> FormatArrays:
    """`formats` with the noise of the named ones: `pairs` are the names of keys and values, ""
    for sides that have bits."""
    if not any(k or v for k, v in pairs):
        return formats
    columns = {
        name: np.array(getattr(formats, name), dtype=float)
        for name in ("k_bits", "v_bits", "group", "rotate_k", "rotate_v")
    }
    for i, (k, v) in enumerate(pairs):
        for side, name in (("k", k), ("v", v)):
            if not name or (name in CODED and name not in KV_NOISE):
                continue  # coded_noise.py knows what ours are worth in their groups
            noise = KV_NOISE[name]
            rotated = noise.rotates == "always" or (
                noise.rotates == "heads" and head_dim % ROTATED_HEADS == 0
            )
            bits = noise.bits
            if side == "k" and not noise.minimum and not rotated:
                bits -= NO_MINIMUM
            columns[f"{side}_bits"][i] = bits
            if name not in CODED:
                columns[f"rotate_{side}"][i] = float(rotated and noise.bits < 16)
            if noise.bits < 16 and k and v:  # beside integers, theirs is the group
                columns["group"][i] = min(noise.group or head_dim, head_dim)
    return replace(formats, **columns)


def is_file_itself(spec: ModelSpec, name: str) -> bool:
    """Whether the weights called `name` are those of the model's own GGUF file: there is nothing
    else to run, and what they keep is counted from them."""
    own = None
    if spec.gguf is not None:
        from ..formats.gguf_types import MIXES  # a plan of other engines starts without them

        own = MIXES.get(spec.gguf.mix)
    return spec.gguf is not None and bool(name) and (own is None or own.quantized)


def weight_notes(spec: ModelSpec, name: str) -> tuple[str, ...]:
    """What a reader should know of how a weight format with a name is judged."""
    if is_file_itself(spec, name):
        return (f"against the GGUF file's own answers: what {name} cost the model is not counted",)
    if is_published(spec, name):
        return (f"{name}: the weights' loss is by its published divergence on another model",)
    fewer = "" if name else taken_for(spec)
    if fewer and spec.quantization is not None:
        return (
            f"the weights have {spec.quantization.bits:g} bits: no score of such a file is known, "
            f"and they are taken to lose what {fewer} does",
        )
    return ()


def taken_for(spec: ModelSpec) -> str:
    """The mix whose loss stands for that of a checkpoint of fewer than 4 bits; else empty."""
    own = spec.quantization
    if own is None or own.bits >= 4 or own.method in TRAINED_SO:
        return ""
    return _FEWER_BITS[max(2, int(own.bits))]


def checkpoint_bits(bits: float) -> float:
    """Bits on the scale of `formula.weight_noise` of a checkpoint that was quantized in so many
    afterwards: below 4, those of the mix that stands for it."""
    return bits if bits >= 4 else equivalent_bits(_FEWER_BITS[max(2, int(bits))])


def weight_equivalents(
    spec: ModelSpec,
    names: Sequence[str],
    bits: Sequence[float],
    attenuation: float,
    *,
    released: bool,
) -> Floats:
    """Bits on the scale of `formula.weight_noise`, under this attenuation from 4 to 8 of them, of
    each weight format: of its name, or as given.

    `released`: the model was released in MXFP4 alone (gpt-oss). Its experts stay so in every mix,
    and only the rest, a tenth of it, is quantized. One that has no experts is not released so.
    """
    own, rows = spec.quantization, []
    released = released and (own is None or own.bits < 16)
    tenth = 4.0 * float(np.log(10.0)) / attenuation  # bits more that leave a tenth of the noise
    for name, given in zip(names, bits, strict=True):
        if is_file_itself(spec, name):
            rows.append(16.0)
            continue
        fewer = "" if name or given >= 16 else taken_for(spec)
        one = equivalent_bits(name or fewer) if name or fewer else float(given)
        if not name and spec.quantization is not None and spec.quantization.method in TRAINED_SO:
            one = max(one, 4.0)
        if released and one < 16:
            one = 16.0 if name in ("", RELEASED) else max(one, 4.0) + tenth
        rows.append(one)
    return np.array(rows)


def equivalent_bits(name: str) -> float:
    """Bits that a weight format with a name is worth; 16 where it loses nothing."""
    if name in ("F32", "F16", "BF16"):
        return 16.0
    if name in _OTHER_BITS:
        return _OTHER_BITS[name]
    divergence = _divergences().get(name, _OTHER_KL.get(name))
    if divergence is None:
        raise KeyError(name)
    ratio = float(np.log(divergence / _AWQ_KL))
    if ratio <= 0:
        return 4.0 + 4.0 * ratio / float(np.log(_INT8_KL / _AWQ_KL))
    broken = float(np.log1p((divergence / _BREAKS) ** _BREAKING))
    return 4.0 - (ratio + broken) / WEIGHTS_BELOW_4


def is_published(spec: ModelSpec, name: str) -> bool:
    """Whether a weight format's loss rests on a published table rather than on rows of ours."""
    if is_file_itself(spec, name):
        return False
    row = named.weight_format(name) if name else None
    return row is not None and row.bits < 16


@lru_cache(maxsize=1)
def _divergences() -> dict[str, float]:
    """Mean KL divergence by mix on Llama 3 8B, with an importance matrix where there is such."""
    divergence_of: dict[str, float] = {}
    for line in profiles.read("published/gguf_kl.csv").splitlines()[1:]:
        mix, imatrix, divergence, _, _, model, _ = line.split(",")
        if model == "Llama 3 8B" and (imatrix == "1" or mix not in divergence_of):
            divergence_of[mix] = float(divergence)
    return divergence_of
