"""What a GPU's memory holds beside tensors: the driver's context, library workspaces, slack.

Measured on one H200; for other GPUs estimated, and said so. Slack is what torch's caching
allocator reserves beyond the bytes that are in use at the worst moment: caches that grow by
concatenation leave holes, so it follows the memory that comes and goes, not the weights.
"""

import re
from dataclasses import dataclass

from .configuration import Configuration
from .hardware import Hardware
from .local_hardware import damaged, measured_here, path_of
from .model_spec import ModelSpec, Role
from .workload import Engine

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


@dataclass(frozen=True, slots=True)
class Slack:
    """Reserved but unused bytes as parts of the bytes that come and go (peak - weights)."""

    expected: float
    low: float
    high: float


# From the rows of profiles/calibrations/memory_h200_baseline.jsonl: median, and limits somewhat
# wider than seen (0.18 in one shot, 0.32 in chunks, 0.26 quantized). A process with memory to
# spare and torch's default allocator caches far more and gives it back when it is needed
# (docs/memory.md).
_ONE_SHOT = Slack(0.05, 0.0, 0.30)
_CHUNKED = Slack(0.15, 0.05, 0.40)
_QUANTIZED = Slack(0.12, 0.03, 0.35)
_PREALLOCATED = Slack(0.05, 0.0, 0.12)  # one row: 0.06


def context(hardware: Hardware | None) -> Interval:
    """Device memory taken before the first tensor."""
    here = _measured_here(hardware, "context")
    if here is not None:
        return Interval(*(int(x) for x in here))
    if hardware is not None and hardware.measured_context_bytes is not None:
        measured = hardware.measured_context_bytes
        return Interval(measured, measured, measured)
    return Interval(CONTEXT_ESTIMATE, *CONTEXT_RANGE)


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


def workspace(spec: ModelSpec, engine: Engine, hardware: Hardware | None) -> int:
    """Workspaces of cuBLAS that torch's allocator counts; without a GPU named, Hopper's.

    One for each stream that multiplies: kvpareto warms up and captures its CUDA graphs on a stream
    beside the one it runs on. Products with a bias take a small one of cuBLASLt.
    """
    each = WORKSPACE_OTHER
    if hardware is None or set(re.split(r"[ -]", hardware.name.lower())) & _HOPPER_AND_LATER:
        each = WORKSPACE_HOPPER
    biased = any(group.role is Role.BIAS for group in spec.tensors)
    streams = 2 if engine is Engine.KVPARETO else 1
    return streams * each + (WORKSPACE_BIAS if biased else 0)


def slack_part(engine: Engine, config: Configuration, hardware: Hardware | None) -> Slack:
    """Slack of an engine under a configuration, as parts of what comes and goes."""
    if engine is Engine.KVPARETO:
        here = _measured_here(hardware, "slack")
        return _PREALLOCATED if here is None else Slack(*here)
    if config.quantizes_kv:
        return _QUANTIZED
    return _ONE_SHOT if config.chunk is None else _CHUNKED


def slack(
    engine: Engine, config: Configuration, hardware: Hardware | None, comes_and_goes: int
) -> Interval:
    """Reserved but unused bytes, given the peak bytes that are not weights."""
    part = slack_part(engine, config, hardware)
    low, expected, high = (int(comes_and_goes * x) for x in (part.low, part.expected, part.high))
    return Interval(expected, low, high)
