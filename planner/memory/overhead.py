"""What a GPU's memory holds beside tensors: the driver's context, library workspaces, slack.

Measured on one H200; for other GPUs estimated, and said so. Slack is what torch's caching
allocator reserves beyond the bytes that are in use at the worst moment: caches that grow by
concatenation leave holes, so it follows the memory that comes and goes, not the weights.
"""

import re
from dataclasses import dataclass

from ..formats.configuration import Configuration
from ..hardware.gpus import Hardware
from ..hardware.measured import damaged, measured_here, path_of
from ..models.spec import ModelSpec, Part, Role
from ..workload import Engine

Ends = tuple[float, float, float]

# Device memory of a process with a CUDA context and torch's kernels loaded but no tensor: from
# small consumer GPUs to data centre ones. The H200's measured value lies with the profile.
CONTEXT_ESTIMATE = 500_000_000
CONTEXT_RANGE = (250_000_000, 750_000_000)

# torch's cuBLAS workspace (aten/src/ATen/cuda/CUDABlas: 32 MiB for Hopper and later data centre
# GPUs, :4096:2:16:8 for the rest), taken through the caching allocator at the first product.
WORKSPACE_HOPPER = 4096 * 8 * 1024
WORKSPACE_OTHER = 4096 * 2 * 1024 + 16 * 8 * 1024
WORKSPACE_BIAS = 2**20  # seen on an H200 at the first product with a bias
_HOPPER_AND_LATER = {
    "h100", "h200", "h800", "h20", "gh200", "b100", "b200", "b300", "gb200", "gb300",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """An expected value and its limits, bytes."""

    expected: int
    low: int
    high: int


# What libraries add to that once they are loaded (cuBLAS, cuDNN, attention), and kvpareto's own
# kernels, its graphs and Triton's: on an H200 176 MB; and 250 MB for the first formats of a process
# up to 317 MB after a hundred, growing with every one that is compiled.
_LIBRARIES = Interval(176_160_768, 0, 270_000_000)
_LIBRARIES_OWN = Interval(270_000_000, 230_000_000, 340_000_000)


@dataclass(frozen=True, slots=True)
class Slack:
    """Reserved but unused bytes: expected, low and high. Each is a part of the bytes that come and
    go (peak - weights), a part of those beyond the cache, and a number of its own."""

    moving: Ends
    beyond: Ends = (0.0, 0.0, 0.0)
    fixed: Ends = (0.0, 0.0, 0.0)

    def bytes(self, end: int, moving: int, beyond: int) -> int:
        """At an end (0 expected, 1 low, 2 high), given the bytes that it is parts of."""
        return int(self.moving[end] * moving + self.beyond[end] * beyond + self.fixed[end])


# From the rows of profiles/calibrations/memory_h200_baseline.jsonl: median, and limits somewhat
# wider than seen (0.18 in one shot, 0.32 in chunks, 0.26 quantized). A process with memory to
# spare and torch's default allocator caches far more and gives it back when it is needed
# (docs/memory.md).
_ONE_SHOT = Slack((0.05, 0.0, 0.30))
_CHUNKED = Slack((0.15, 0.05, 0.40))
_QUANTIZED = Slack((0.12, 0.03, 0.35))
# kvpareto allocates its cache at once, so that only activations leave holes, and some pages of
# 20 MiB are not full (116 runs of nine models, profiles/calibrations/runs_h200.jsonl).
_OWN = Slack((0.0, 0.0, 0.0), (0.12, 0.03, 0.24), (30e6, 0.0, 70e6))


def context(hardware: Hardware | None, engine: Engine) -> Interval:
    """Device memory outside torch's allocator: the driver's context, libraries, kernels, graphs."""
    here = _measured_here(hardware, "context") if engine is Engine.KVPARETO else None
    if here is not None:
        return Interval(*(int(x) for x in here))
    base = Interval(CONTEXT_ESTIMATE, *CONTEXT_RANGE)
    if hardware is not None and hardware.measured_context_bytes is not None:
        measured = hardware.measured_context_bytes
        base = Interval(measured, measured, measured)
    more = _LIBRARIES_OWN if engine is Engine.KVPARETO else _LIBRARIES
    return Interval(base.expected + more.expected, base.low + more.low, base.high + more.high)


def context_provenance(hardware: Hardware | None) -> str:
    if _measured_here(hardware, "context") is not None:
        return "measured on this machine"
    if hardware is not None and hardware.measured_context_bytes is not None:
        return "measured"
    return "estimated"


def _measured_here(hardware: Hardware | None, name: str) -> tuple[float, float, float] | None:
    """(expected, low, high) of what calibrations on this machine found, if they did."""
    if hardware is None:
        return None
    found = measured_here(hardware.name).get("memory", {}).get(name)
    if found is None:
        return None
    try:
        expected, low, high = (float(x) for x in found)
    except (TypeError, ValueError):
        raise damaged(path_of(hardware.name)) from None
    return expected, low, high


def workspace(spec: ModelSpec, hardware: Hardware | None) -> int:
    """Workspaces of cuBLAS that torch's allocator counts; without a GPU named, Hopper's.

    One for each stream that multiplies, which is one in both engines (kvpareto's: own_stream in
    runtime/forward.py). Products with a bias take a small one of cuBLASLt.
    """
    each = WORKSPACE_OTHER
    if hardware is None or set(re.split(r"[ -]", hardware.name.lower())) & _HOPPER_AND_LATER:
        each = WORKSPACE_HOPPER
    biased = any(group.role is Role.BIAS and group.part is Part.TEXT for group in spec.tensors)
    return each + (WORKSPACE_BIAS if biased else 0)


def slack_of(config: Configuration, engine: Engine, hardware: Hardware | None) -> Slack:
    """Slack of an engine under a configuration."""
    if engine is Engine.KVPARETO:
        here = _measured_here(hardware, "slack")
        return _OWN if here is None else Slack(here)
    if config.quantizes_kv:
        return _QUANTIZED
    return _ONE_SHOT if config.chunk is None else _CHUNKED
