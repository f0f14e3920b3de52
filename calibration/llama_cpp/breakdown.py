"""What llama.cpp prints about its memory, read from its log.

Sizes are printed in MiB with two decimals (compute buffers with four once the engine ends), one
line for each buffer type of each device.
"""

import re
from dataclasses import dataclass, field

MIB = 2**20
_BUFFER = re.compile(r"(\S+) +(model|KV|RS|output|compute) buffer size (?:=|is) +([\d.]+) MiB")
_EXACT = re.compile(r"(\S+) compute buffer size is +([\d.]+) MiB, matches expectation")
_KV = re.compile(
    r"llama_kv_cache: size = +[\d.]+ MiB \( *(\d+) cells, +(\d+) layers, +(\d+)/(\d+) seqs\), "
    r"K \((\w+)\): +([\d.]+) MiB, V \((\w+)\): +([\d.]+) MiB"
)
_NEW_MODEL = "llama_model_loader: loaded meta data"
_NEW_CONTEXT = "llama_context: constructing llama_context"
_FLASH = re.compile(r"Flash Attention (enabled|disabled)|flash_attn += (\w+)")


@dataclass
class Breakdown:
    """Bytes by device, each within half of the last printed digit."""

    model: dict[str, int] = field(default_factory=dict)
    compute: dict[str, int] = field(default_factory=dict)
    output: int = 0
    states: int = 0
    keys: int = 0
    values: int = 0
    cells: list[int] = field(default_factory=list)
    """Cells of each cache: the full one, then that of sliding windows."""

    @property
    def kv(self) -> int:
        """Keys, values and recurrent states."""
        return self.keys + self.values + self.states

    @property
    def repacked(self) -> int:
        """Weights stored a second time, in an order that suits the processor, where the file is
        mapped: the file's pages behind them are read once, and given back when memory is short."""
        mapped = any(device.endswith("_Mapped") for device in self.model)
        return self.model.get("CPU_REPACK", 0) if mapped else 0

    @property
    def weights(self) -> int:
        return sum(self.model.values()) - self.repacked

    @property
    def total(self) -> int:
        return self.weights + self.kv + sum(self.compute.values()) + self.output

    def row(self) -> dict[str, object]:
        return {
            "model": self.model,
            "keys": self.keys,
            "values": self.values,
            "states": self.states,
            "compute": self.compute,
            "output": self.output,
            "cells": self.cells,
        }


def read_breakdown(log: str) -> Breakdown:
    """The sizes in a log of verbosity 4 or more; of an engine that never loaded, nothing.

    llama-server sizes a model and its context before it loads them (--fit), and prints both: what
    was printed last counts.
    """
    breakdown = Breakdown()
    for line in log.splitlines():
        if _NEW_MODEL in line:
            breakdown = Breakdown()
        elif _NEW_CONTEXT in line:
            breakdown = Breakdown(model=breakdown.model)
        elif match := _EXACT.search(line):
            breakdown.compute[match[1]] = _bytes(match[2])
        elif match := _KV.search(line):
            breakdown.cells.append(int(match[1]))
            breakdown.keys += _bytes(match[6])
            breakdown.values += _bytes(match[8])
        elif match := _BUFFER.search(line):
            device, kind, size = match[1], match[2], _bytes(match[3])
            if kind == "model":
                breakdown.model[device] = breakdown.model.get(device, 0) + size
            elif kind == "compute":
                breakdown.compute[device] = size
            elif kind == "output":
                breakdown.output += size
            elif kind == "RS":
                breakdown.states += size
    return breakdown


def _bytes(mib: str) -> int:
    return round(float(mib) * MIB)
