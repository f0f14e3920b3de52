"""GPUs by name: memory, bandwidth and dense matrix rates, each with its source.

A GPU that is not in profiles/hardware/gpus.json has no rates here and therefore no latency:
an unknown name is an error that names its neighbours, never a guess.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...profiles import read
from ..errors import BadInput

_VENDOR_WORDS = ("nvidia", "geforce", "amd", "instinct", "radeon", "apple", "tesla", "oam")
_SERIES_WORDS = ("rtx", "rx")  # "4090" alone is what people type
_HINT = "`kvpareto profiles list` names the known GPUs; without --gpu the plan has no seconds"


@dataclass(frozen=True, slots=True)
class Hardware:
    """One GPU as software sees it (a two-die card's die counts as one).

    `fp16_flops`, `int8_ops`, `fp8_flops`: dense operations a second of the matrix units with
    32-bit accumulation (a multiply and an add are two); None where the vendor states none.
    """

    name: str
    vendor: str
    memory_bytes: int
    """Bytes that the driver reports where somebody looked, else the vendor's size in 2^30."""
    bandwidth: float
    """Bytes a second, from the datasheet."""
    fp16_flops: float
    int8_ops: float | None
    fp8_flops: float | None
    bf16: bool
    """Whether the matrix units take bfloat16 (before Ampere they take float16 only)."""
    unified: bool
    """Memory shared with the host: not all of it can be given to a model."""
    provenance: str
    """"datasheet", or "derived" (cores x clock) for the rates."""
    source: str
    url: str
    note: str
    measured_copy: float | None = None
    """Bytes a second of a device-to-device copy, counting reads and writes, where measured."""
    measured_matmul: float | None = None
    """bf16 operations a second of an 8192^3 matrix product on random data, where measured."""
    measured_context_bytes: int | None = None
    """Device memory taken before the first tensor, where measured."""
    measured_how: str = ""


@lru_cache(maxsize=1)
def list_gpus() -> tuple[Hardware, ...]:
    """Every GPU known, in the order of the profile (consumer, workstation, data centre, ...)."""
    return tuple(gpu for gpu, _ in _load())


def find_gpu(name: str) -> Hardware:
    """The GPU a person or torch means: "4090", "rtx4090", "H100", "NVIDIA A100-SXM4-80GB".

    An exact name or alias wins (vendor words, spaces, dashes and case do not count); else the
    one GPU whose name has all the words given. Raises BadInput, naming near ones, if there is
    no such GPU or more than one.
    """
    key = _key(name)
    exact = _names()
    if key in exact:
        return exact[key]
    words = _words(name)
    if words:
        found = [gpu for gpu, names in _load() if any(words <= _words(n) for n in names)]
        if len(found) == 1:
            return found[0]
        if found:
            raise BadInput(
                f"more than one GPU is called {name!r}: {_some(g.name for g in found)}",
                "say which one",
            )
    from difflib import get_close_matches  # only on the way to an error

    near = [exact[k].name for k in get_close_matches(key, exact, n=8, cutoff=0.6)]
    close = f"; near: {_some(dict.fromkeys(near))}" if near else ""
    raise BadInput(f"unknown GPU: {name!r}{close}", _HINT)


@lru_cache(maxsize=1)
def _load() -> tuple[tuple[Hardware, tuple[str, ...]], ...]:
    """Every GPU with its name and aliases."""
    profile = json.loads(read("hardware/gpus.json"))
    sources = profile["sources"]
    return tuple(
        (_hardware(row, sources[row["source"]]), (row["name"], *row.get("aliases", ())))
        for row in profile["gpus"]
    )


def _hardware(row: dict[str, Any], source: dict[str, str]) -> Hardware:
    def scaled(of: dict[str, Any], key: str, unit: float) -> float | None:
        return None if of.get(key) is None else of[key] * unit

    measured = row.get("measured", {})
    return Hardware(
        name=row["name"],
        vendor=row["vendor"],
        memory_bytes=row.get("reported_mib", row["memory_gib"] * 1024) * 2**20,
        bandwidth=row["bandwidth_gb_s"] * 1e9,
        fp16_flops=row["fp16_tflops"] * 1e12,
        int8_ops=scaled(row, "int8_tops", 1e12),
        fp8_flops=scaled(row, "fp8_tflops", 1e12),
        bf16=row.get("bf16", True),
        unified=row.get("unified", False),
        provenance=row["provenance"],
        source=source["title"],
        url=source["url"],
        note=row.get("note", ""),
        measured_copy=scaled(measured, "copy_gb_s", 1e9),
        measured_matmul=scaled(measured, "matmul_bf16_tflops", 1e12),
        measured_context_bytes=measured.get("context_overhead_bytes"),
        measured_how=measured.get("how", ""),
    )


@lru_cache(maxsize=1)
def _names() -> dict[str, Hardware]:
    """Normalised names and aliases; a short form only where one GPU alone has it."""
    names: dict[str, Hardware] = {}
    shared: set[str] = set()
    for gpu, aliases in _load():
        for alias in aliases:
            for key in {_key(alias), _key(alias, series=False)}:
                if names.setdefault(key, gpu) is not gpu:
                    shared.add(key)
    return {key: gpu for key, gpu in names.items() if key not in shared}


def _words(name: str) -> frozenset[str]:
    words = re.findall(r"[a-z0-9]+", name.lower())
    return frozenset(w for w in words if w not in _VENDOR_WORDS)


def _key(name: str, *, series: bool = True) -> str:
    dropped = _VENDOR_WORDS if series else _VENDOR_WORDS + _SERIES_WORDS
    words = re.findall(r"[a-z0-9]+", name.lower())
    key = "".join(w for w in words if w not in dropped)
    for vendor in _VENDOR_WORDS:  # "nvidiah200", written in one
        key = key.removeprefix(vendor)
    return key


def _some(names: Iterable[str], limit: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:limit]) + (", …" if len(listed) > limit else "")
