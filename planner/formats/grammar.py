"""Reading a configuration's text into the fields of Configuration, part by part.

    w WEIGHTS - k KEYS v VALUES [-granularity ...] [+option ...]

WEIGHTS is bits with activations (`4a16`, `4a8`) or a name (`Q4_K_M`); KEYS and VALUES are bits or
names (`q8_0`). What the parts mean is configuration.py's docstring; whether they go together is
checked there too.
"""

import re
from difflib import get_close_matches

from ..errors import BadInput
from ..light_dataclass import dataclass
from . import named
from .granularity import Granularity

DEFAULT_CHANNEL_BLOCK = 32  # tokens a per-channel key block spans: KIVI's choice (arXiv 2402.02750)

HINT = "write it like w4a16-k4v4-g64+pc256; `kvpareto estimate --help` draws the grammar"
_BITS = re.compile(r"w(\d+)a(\d+)-k(\d+)v(\d+)((?:-[a-z]+\d*)*)((?:\+.*)?)", re.ASCII | re.DOTALL)
_NAMES = re.compile(
    r"w(\d+a\d+|[a-zA-Z]\w*)-k(\w+)((?:-[a-z]+\d*)*)((?:\+.*)?)", re.ASCII | re.DOTALL
)
_WEIGHTS = re.compile(r"w?(16|8|4)(?:a16)?", re.ASCII)
_DASHES = re.compile("[\N{HYPHEN}-\N{HORIZONTAL BAR}\N{MINUS SIGN}]")
_PROTECT = re.compile(r"protect\{(\d{1,6}(?:,\d{1,6})*)\}:k(\d+)v(\d+)", re.ASCII)

MOST_TOKENS = {"res": 2**20, "sink": 8192, "pc": 2**20}
"""Longest windows, sinks and chunks: as long as the contexts of models, and of a system prompt."""
_RANGES = {name: f"+{name} takes 1 to {most:,} tokens" for name, most in MOST_TOKENS.items()} | {
    "rope": "rotary keys take 16, 8 or 4 bits: +rope8",
    "clip": "codes are clipped to 50 to 99 % of their range: +clip70",
}
"""What the number behind an option may be."""

Fields = dict[str, object]


@dataclass(frozen=True, slots=True)
class Protection:
    """Layers that keep their own K and V bits, usually more than the rest."""

    layers: tuple[int, ...]
    k_bits: int
    v_bits: int


def read_fields(text: str) -> Fields:
    """Keyword arguments of Configuration. Raises BadInput naming the part that is wrong."""
    stripped = text.strip() if len(text) <= 2000 else ""
    if not _NAMES.fullmatch(stripped) and _BITS.fullmatch(stripped.lower()):
        stripped = stripped.lower()
    if match := _BITS.fullmatch(stripped):
        weight, activation, k, v = (_small_int(match[i], text) for i in range(1, 5))
        fields: Fields = {"weight_bits": weight, "activation_bits": activation}
        fields |= {"k_bits": k, "v_bits": v}
        granularity, options = match[5], match[6]
    elif match := _NAMES.fullmatch(stripped):
        fields = _read_weights(match[1], text) | _read_kv(match[2], text)
        granularity, options = match[3], match[4]
    else:
        raise _no_configuration(text, stripped)
    for part in granularity.split("-")[1:]:
        _read_granularity(part, fields)
    for part in options.split("+")[1:]:
        _read_option(part, fields)
    return fields


def _no_configuration(text: str, stripped: str) -> BadInput:
    """What is wrong with a text that is no configuration; weights alone name what is missing."""
    if weights := _WEIGHTS.fullmatch(stripped.lower()):
        whole = f"w{weights[1]}a16-k8v8"
        return BadInput(
            f"not a configuration: {text!r} names weights alone, no keys and values",
            f"write both: {whole} or {whole}+pc512",
        )
    hyphens = _DASHES.sub("-", stripped)
    if hyphens != stripped:
        return BadInput(f"{text!r} has dashes that are no hyphens", f"write {hyphens}")
    return BadInput(f"not a configuration: {text!r}", HINT)


def _near(token: str) -> str:
    """What was meant by a weight format that is none, or all that there are."""
    bare = re.sub(r"a\d+$", "", token, flags=re.IGNORECASE)
    row = named.weight_format(bare)
    if row is not None:
        return f"a format's name says no activations: w{row.name}"
    known = list(named.names(named.WEIGHTS))
    lower = {name.lower(): name for name in known}
    near = get_close_matches(bare.lower(), lower, n=3)
    return (
        f"nearest are {', '.join(lower[n] for n in near)}" if near else f"known: {', '.join(known)}"
    )


def _read_weights(token: str, text: str) -> Fields:
    if token[0].isdigit():
        bits, activation = (_small_int(number, text) for number in token.split("a"))
        return {"weight_bits": bits, "activation_bits": activation}
    row = named.weight_format(token)
    if row is None:
        raise BadInput(f"{token!r} is not a weight format", _near(token))
    return {"weight_bits": row.bits, "weight_format": row.name}


def _read_kv(token: str, text: str) -> Fields:
    """`4v4`, `q8_0vq5_1` or one of each: cut at the `v` that leaves a format on both sides."""
    cuts = [i for i, letter in enumerate(token) if letter in "vV"]
    if not cuts:
        raise BadInput(f"not a configuration: {text!r}", HINT)
    for cut in cuts:
        k, v = (_side(part) for part in (token[:cut], token[cut + 1 :]))
        if k is not None and v is not None:
            return {"k_bits": k[0], "k_format": k[1], "v_bits": v[0], "v_format": v[1]}
    raise BadInput(
        f"not a configuration: 'k{token}' names no KV formats",
        "keys and values are 16, 8, 6, 5, 4, 3 or 2 bits or "
        f"{', '.join(named.names(named.KV))}: kq8_0vq5_1",
    )


def _side(token: str) -> tuple[int, str] | None:
    """(bits, name or "") of keys or values; None for what is no format."""
    if re.fullmatch(r"\d{1,12}", token, re.ASCII):
        return int(token), ""
    row = named.kv_format(token)
    return None if row is None else (row.bits, row.name)


def _small_int(digits: str, text: str) -> int:
    if len(digits) > 12:
        raise BadInput(f"not a configuration: {text!r}", HINT)
    return int(digits)


def _set(fields: Fields, part: str, **values: object) -> None:
    if values.keys() & fields.keys():
        raise BadInput(f"{part!r} says something twice", HINT)
    fields.update(values)


def _read_granularity(part: str, fields: Fields) -> None:
    match = re.fullmatch(r"(g|pb|pt|kc)(\d*)", part, re.ASCII)
    if match is not None and len(match[2]) > 6:
        raise BadInput(
            f"-{part} is out of range", "blocks of at most six digits: -g64, -pb128, -kc"
        )
    if (
        match is None
        or (match[1] in ("g", "pb")) > bool(match[2])
        or (match[1] == "pt" and match[2])
    ):
        raise BadInput(f"'-{part}' is not a granularity", "use -g64, -pb128, -pt or -kc")
    number = int(match[2]) if match[2] else DEFAULT_CHANNEL_BLOCK
    match match[1]:
        case "g":
            _set(fields, part, group_size=number)
        case "pb":
            _set(fields, part, granularity=Granularity.PER_BLOCK, block_tokens=number)
        case "kc":
            _set(fields, part, granularity=Granularity.PER_CHANNEL, block_tokens=number)
        case _:
            _set(fields, part, granularity=Granularity.PER_TENSOR)


def _read_option(part: str, fields: Fields) -> None:
    if part == "smooth":
        _set(fields, part, smoothing=True)
    elif part == "rot":
        _set(fields, part, rotation=True)
    elif part == "affine":
        _set(fields, part, affine=True)
    elif part == "pcdyn":
        _set(fields, part, chunk=None, dynamic_chunk=True)
    elif match := re.fullmatch(r"(res|sink|rope|clip|pc)(\d+)", part, re.ASCII):
        if match[2].startswith("0") or len(match[2]) > 10:
            raise BadInput(f"+{part} is out of range", _RANGES[match[1]])
        names = {"res": "residual", "sink": "sinks", "rope": "rope_bits", "pc": "chunk"}
        names |= {"clip": "clip"}
        _set(fields, part, **{names[match[1]]: int(match[2])})
    elif match := _PROTECT.fullmatch(part):
        layers = tuple(sorted({int(x) for x in match[1].split(",")}))
        bits = _small_int(match[2], part), _small_int(match[3], part)
        _set(fields, part, protection=Protection(layers, *bits))
    else:
        raise BadInput(
            f"'+{part}' is not an option",
            "options are +smooth, +rot, +affine, +clip70, +rope8, +res128, +sink4, "
            "+protect{0,27}:k8v8, +pc256 and +pcdyn",
        )
