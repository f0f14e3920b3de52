"""What vLLM prints about its memory, for releases whose workers do not tell it in bytes.

Sizes are printed in GiB with two decimals, so each is known to half of the last one (5 MiB).
"""

import re
from typing import Any

from ...planner.units import GiB

DIGIT = GiB // 200
"""Half of the last digit that is printed, bytes."""
_LOADED = re.compile(r"Model loading took ([\d.]+) Gi?B")
_LEFT = re.compile(r"Available KV cache memory: (-?[\d.]+) GiB")
_TOKENS = re.compile(r"GPU KV cache size: ([\d,]+) tokens")
_USAGE = re.compile(
    r"Free memory on device \(([\d.]+)/([\d.]+) GiB\) on startup\. Desired GPU memory utilization "
    r"is \([\d.]+, ([\d.]+) GiB\)\. Actual usage is ([\d.]+) GiB for weight, ([\d.]+) GiB for peak "
    r"activation, ([\d.]+) GiB for non-torch memory, and ([\d.]+) GiB for CUDAGraph memory"
)
_LONGEST = re.compile(r"estimated maximum model length is (\d+)")


def read_log(log: str) -> dict[str, Any]:
    """Bytes by the names that workers use, as far as they were printed; `tokens`, `longest`."""
    found: dict[str, Any] = {}
    if match := _LOADED.search(log):
        found["weights"] = _bytes(match[1])
    if match := _LEFT.search(log):
        found["cache"] = _bytes(match[1])
    if match := _TOKENS.search(log):
        found["tokens"] = int(match[1].replace(",", ""))
    if match := _USAGE.search(log):
        names = "total", "requested", "weights", "activation", "other", "graphs"
        found |= {name: _bytes(match[i + 2]) for i, name in enumerate(names)}
    if match := _LONGEST.search(log):
        found["longest"] = int(match[1])
    return found


def _bytes(gib: str) -> int:
    return round(float(gib) * GiB)
