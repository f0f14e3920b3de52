"""What a GPU's memory holds beside tensors: the driver's context and library workspaces.

Measured on one H200; for other GPUs estimated, and said so. The allocator's slack is in
allocator_slack.py.
"""

import re

from ..engine import Ends, Interval
from ..hardware.gpus import Hardware
from ..hardware.measured import damaged, measured_on, path_of
from ..models.spec import ModelSpec, Part, Role

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


def driver_context(hardware: Hardware | None) -> Interval:
    """Device memory of a process with a context and torch's kernels loaded but no tensor."""
    if hardware is not None and hardware.measured_context_bytes is not None:
        measured = hardware.measured_context_bytes
        return Interval(measured, measured, measured)
    return Interval(CONTEXT_ESTIMATE, *CONTEXT_RANGE)


def context_provenance(hardware: Hardware | None) -> str:
    if measured_ends(hardware, "context") is not None:
        return "measured on this machine"
    if hardware is not None and hardware.measured_context_bytes is not None:
        return "measured"
    return "estimated"


def measured_ends(hardware: Hardware | None, name: str) -> Ends | None:
    """(expected, low, high) of what calibrations on this machine found, if they did."""
    if hardware is None:
        return None
    ends = measured_on(hardware.name).get("memory", {}).get(name)
    if ends is None:
        return None
    try:
        expected, low, high = (float(x) for x in ends)
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
