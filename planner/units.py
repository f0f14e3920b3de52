"""Sizes and counts between people and code: the only place where GB, GiB and strings meet.

`GB` = 10^9 bytes, `GiB` = 2^30 bytes; everything inside the program is an int of bytes.
"""

import math
import re
from collections.abc import Callable

from .errors import BadInput

GB = 10**9
GiB = 2**30

_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_NUMBER = r"(\d{1,19}(?:\.\d{1,12})?|\.\d{1,12})"
_SIZE = re.compile(_NUMBER + r"\s*([kmgtp]?)(i?)(b?)", re.ASCII | re.IGNORECASE)
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+", re.ASCII)
_GROUPED = re.compile(r"\d{1,3}([,_])\d{3}(?:\1\d{3})*(?![\d.,_])", re.ASCII)
_TOKENS = re.compile(_NUMBER + r"\s*([km]?)", re.ASCII | re.IGNORECASE)
_UNITS = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_COUNTED = {"users": ("users", "4 or 16"), "batch": ("sequences", "4 or 16")}
"""What is counted that are no tokens: its unit, and how it is written."""
_SECONDS = re.compile(_NUMBER + r"\s*(s|ms|[uµμ]s|)", re.ASCII | re.IGNORECASE)
_PERCENT = re.compile(_NUMBER + r"\s*%", re.ASCII)
_PLAIN = re.compile(_NUMBER + r"(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """`12GB`, `.5TB`, `1PiB`, `12288MiB`, `24g` (= GB) or `1024B` -> bytes.

    Raises BadInput for anything else, for a number without a unit (12 is GB to one person and
    bytes to the next program), for zero, and for more than 2^60 bytes.
    """
    match = _SIZE.fullmatch(_spaced(text))
    if match is None or (match[3] and not match[2]):
        whole = _written_out(text)
        hint = without_comma(text, parse_bytes) or "write it like 12GB, 11.5GiB or 12288MiB"
        hint = f"write {budget_for(int(whole))}" if whole and whole != "0" else hint
        raise BadInput(f"not a memory size: {text!r}", hint)
    number, prefix, binary, unit = match.groups()
    if not prefix and not unit and float(number) > 0:
        raise BadInput(f"a memory size without a unit: {text.strip()!r}", _with_unit(number))
    factor = (_BINARY if binary else _DECIMAL).get(prefix.lower(), 1)
    digits, _, part = number.partition(".")
    size = int(digits + part) * factor // 10 ** len(part)
    if not 0 < size <= 2**60:
        raise BadInput(f"memory size out of range: {text!r}", "it must be between 1B and 1024PiB")
    return size


def _spaced(text: str) -> str:
    """`text` with ordinary spaces: what is copied from a page may hold others."""
    return " ".join(text.split())


def split_bytes(text: str) -> list[int]:
    """`8GB,12GB` -> bytes of each. Raises BadInput, for `12,5GB` with what is meant."""
    if hint := without_comma(text, parse_bytes):
        raise BadInput(f"{text.strip()!r} is no list of memory sizes", hint)
    return [parse_bytes(part) for part in text.split(",")]


def without_comma(text: str, parse: Callable[[str], float]) -> str | None:
    """The hint for `12,5GB`, of which a decimal comma is the only fault: what `parse` reads. A
    comma that may group digits is asked back. None for other faults."""
    text = _spaced(text)
    ways = [text.replace(",", "")] if _GROUPED.match(text) else []
    ways += [text.replace(",", ".")] if "," in text else []
    read = [way for way in ways if _is_read(way, parse)]
    return f"write {' or '.join(read)}" if read else None


def _is_read(text: str, parse: Callable[[str], float]) -> bool:
    try:
        parse(text)
    except BadInput:
        return False
    return True


def _with_unit(number: str) -> str:
    """The hint that asks a number without a unit back: what it most likely means is said first."""
    if float(number) < 10**6:
        return f"write {number}GB"
    return f"write {number.split('.')[0]}B, or {budget_for(int(float(number)))}"


def budget_for(size: int, space: str = "") -> str:
    """The smallest budget of two decimals that holds `size` bytes, as `parse_bytes` reads it.

    `format_bytes` rounds to nearest, so what it prints may be too small by half a digit.
    """
    unit, factor = next(
        ((unit, factor) for unit, factor in _UNITS if size >= factor), ("kB", 10**3)
    )
    hundredths = -(-size * 100 // factor)
    return f"{hundredths // 100}.{hundredths % 100:02d}{space}{unit}"


def parse_tokens(text: str, *, minimum: int = 1, what: str = "context") -> int:
    """`32k` (= 32,768), `.5k`, `10240`, `10,240`, `1m` (= 1,048,576) -> tokens. k and m are powers
    of two: lengths are named that way by the models themselves (a "128k" model has 131,072).
    """
    spaced = _spaced(text)
    grouped = _GROUPED.match(spaced)
    match = _TOKENS.fullmatch(spaced.replace(grouped[1], "") if grouped else spaced)
    unit, example = _COUNTED.get(what, ("tokens", "32k or 10240"))
    if match is None:
        said = unit if unit == what else f"{unit} for {what}"
        hint = f"write {_written_out(text) or f'it like {example}'}"
        raise BadInput(
            f"not a number of {said}: {text!r}", without_comma(text, parse_tokens) or hint
        )
    exact = float(match[1]) * {"": 1, "k": 2**10, "m": 2**20}[match[2].lower()]
    if exact != math.floor(exact):
        raise BadInput(f"not a whole number of {unit} for {what}: {text!r}", f"write {example}")
    if not minimum <= exact <= 2**31:
        raise BadInput(
            f"{what} out of range: {text!r}", f"it must be between {minimum} and {2**31} {unit}"
        )
    return int(exact)


def _written_out(text: str) -> str | None:
    """`1e6` as 1000000; None for what is no whole number of at most twelve digits."""
    try:
        value = float(text)
    except ValueError:
        return None
    return str(int(value)) if 0 <= value < 1e12 and value.is_integer() else None


def groups_digits(text: str) -> bool:
    """Whether the commas of a number group its digits: `10,240`."""
    return _THOUSANDS.fullmatch(text.strip()) is not None


def split_tokens(text: str) -> list[str]:
    """`8k,32k` -> its parts, each for `parse_tokens`.

    Raises BadInput for `10,240`, which is one number to some and two to others.
    """
    if groups_digits(text):
        spaced, whole = text.strip().replace(",", ", "), text.strip().replace(",", "")
        raise BadInput(
            f"{text.strip()!r} can be one length or several", f"write {whole}, or '{spaced}'"
        )
    return text.split(",")


def parse_fraction(text: str, what: str = "loss") -> float:
    """`3%` or `0.03` -> 0.03, between 0 and 1. Raises BadInput for anything else."""
    spaced = _spaced(text)
    percent = _PERCENT.fullmatch(spaced)
    try:
        value = float(percent[1]) / 100 if percent else float(spaced)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1 or not (percent or _PLAIN.fullmatch(spaced)):
        hint = "write it like 3% or 0.03"
        hint = f"write {spaced}%" if _PERCENT.fullmatch(f"{spaced}%") and value <= 100 else hint
        hints = (without_comma(way, parse_fraction) for way in (text, f"{text}%"))
        hint = next(filter(None, hints), hint)
        raise BadInput(f"not a {what} between 0 and 100 %: {text!r}", hint)
    if spaced == "1" and what == "loss":
        raise BadInput("a loss of '1' can be 1 % or all of it", "write 1% or 100%")
    return value


def parse_seconds(value: str | float, what: str = "time") -> float:
    """`2s`, `30ms`, `250us` -> seconds; a number, no text, is seconds. Raises BadInput for others,
    for none, and for text without a unit, which one reads as seconds and another as milliseconds.
    """
    match = _SECONDS.fullmatch(_spaced(value)) if isinstance(value, str) else None
    if match and not match[2] and float(match[1]):
        raise BadInput(f"{match[0]!r} for {what} has no unit", f"write {match[1]}ms or {match[1]}s")
    seconds = 0.0 if isinstance(value, str) else float(value)
    if match:
        seconds = float(match[1]) * {"s": 1.0, "ms": 0.001}.get(match[2].lower(), 1e-6)
    if not 0 < seconds < 1e6:
        hint = without_comma(str(value), parse_seconds) or "write it like 2s or 30ms"
        raise BadInput(f"not a time for {what}: {str(value)!r}", hint)
    return seconds


def format_seconds(seconds: float) -> str:
    """Seconds in three digits, as `parse_seconds` reads them: `2 s`, `30 ms`."""
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def seconds_for(seconds: float) -> str:
    """The smallest limit of three digits that `seconds` keep, as `parse_seconds` reads it.

    `format_seconds` rounds to nearest, so what it prints may be too short by half a digit.
    """
    unit, scale = ("ms", 1000) if seconds < 0.9995 else ("s", 1)
    digits = min(max(0, 2 - math.floor(math.log10(seconds * scale))), 9)
    texts = (f"{seconds * scale + up / 10**digits:.{digits}f} {unit}" for up in (0, 1))
    return next(text for text in texts if parse_seconds(text) >= seconds)


def format_parameters(count: int) -> str:
    """`7.62 B`, `134.52 M`, `260 k`: a model's parameters in the unit that keeps three digits."""
    if count >= 10**9:
        return f"{count / 1e9:.2f} B"
    if count >= 10**6:
        return f"{count / 1e6:.2f} M"
    return f"{count / 1e3:.0f} k" if count >= 10**4 else f"{count:,}"


def format_bytes(size: int) -> str:
    """Bytes for a person, in the decimal unit that keeps the number readable: `11.42 GB`."""
    magnitude = abs(size)
    for unit, factor in _UNITS:
        if magnitude >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size} B"


def format_percent(share: float, *, upper: bool = False) -> str:
    """`0.979` -> `97.9 %`. What is below 1 is never shown as `100.0 %`, unless it is the `upper`
    end of an interval, which is rounded to nearest."""
    if share < 1 - 1e-9 and not upper:
        share = min(share, 0.999)
    return f"{100 * share:.1f} %"


def format_time(value: float, like: float | None = None) -> str:
    """Seconds, milliseconds or microseconds with what a prediction resolves, in the unit of `like`,
    which stands on the same line: `46.3 ms`, `7.65 s`, `171 s`, `18.2 µs`."""
    scale = value if like is None else like
    if 0 < scale < 1e-4:
        return f"{1e6 * value:.3g} µs"
    if 0 < scale < 1e-3:
        return f"{1000 * value:,.2f} ms"
    if scale < 0.1:
        return f"{1000 * value:,.1f} ms"
    return f"{value:.2f} s" if value < 100 else f"{value:,.0f} s"


def format_count(count: int, noun: str) -> str:
    """`1 user`, `2 users`, `4,096 sequences`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def exact_bytes(size: int) -> str:
    """`size` as `parse_bytes` reads it back to the byte, in the largest unit that takes no more
    than twelve digits: `12GB`, `1.5GB`."""
    for unit, factor in _UNITS:
        whole, rest = divmod(size, factor)
        text = f"{whole}.{rest:0{len(str(factor)) - 1}d}".rstrip("0").rstrip(".")
        if whole and len(text.replace(".", "")) <= 12:
            return text + unit
    return f"{size}B"


def format_tokens(count: int) -> str:
    """Tokens as people name them: 32768 -> `32k`, 10000 -> `10,000`."""
    if count >= 2**20 and count % 2**20 == 0:
        return f"{count // 2**20}m"
    if count >= 2**10 and count % 2**10 == 0:
        return f"{count // 2**10}k"
    return f"{count:,}"
