"""`--gpu auto`: the GPU of this machine, as nvidia-smi, ROCm's rocm-smi or sysfs, or macOS say.

Nothing is imported for it: each tool is asked in a process of its own, with a limit on its time,
and one that is missing, fails or answers nonsense names no GPU. What the driver says of the memory
stands in for the profile's.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import BadInput, MissingDependency
from ..light_dataclass import dataclass
from ..units import format_bytes
from .gpu_names import find_gpu
from .gpus import Hardware

TIMEOUT = 10  # seconds for each tool
SYSFS = Path("/sys/class/drm")
_MIB = 2**20
_AMD = "0x1002"


@dataclass(frozen=True, slots=True)
class DetectedGPU:
    """A GPU as a driver names it. `total` is the device's memory in bytes, `usable` what of it a
    program can have; None where the driver does not say."""

    name: str
    total: int | None = None
    usable: int | None = None


def detect_gpu() -> Hardware:
    """The GPU of this machine, with the memory that its driver reports.

    Raises MissingDependency where none is found, BadInput for one that is not known and for cards
    that differ.
    """
    for ask in (_nvidia, _rocm, _sysfs, _macos):
        gpus = ask()
        if gpus:
            return _known(gpus)
    raise MissingDependency(
        "no GPU was found in this machine: nvidia-smi, rocm-smi and sysctl name none",
        "name the one to plan for, --gpu 4090, or its memory, --budget 12GB",
    )


def _known(gpus: Sequence[DetectedGPU]) -> Hardware:
    names = list(dict.fromkeys(one.name for one in gpus))
    if len(names) > 1:
        raise BadInput(
            f"this machine has GPUs that differ: {', '.join(names)}",
            f"say which one: --gpu {names[0]!r}",
        )
    one = gpus[0]
    try:
        gpu = find_gpu(one.name, one.total)
    except BadInput as error:
        size = one.usable or one.total
        memory = f" of {format_bytes(size)}" if size else ""
        budget = f": --budget {size // 10**8 / 10:g}GB" if size else ""
        raise BadInput(
            f"this machine's GPU{memory}: {error.message}", f"plan by its memory{budget}"
        ) from None
    given = gpu.memory_bytes if one.total is None else min(gpu.memory_bytes, one.total)
    source, estimated = gpu.memory_source, gpu.memory_estimated
    if one.usable is not None:
        given, source, estimated = one.usable, "this machine's driver", False
    return replace(
        gpu, memory_bytes=given, memory_source=source, memory_estimated=estimated, here=True
    )


def _nvidia() -> list[DetectedGPU]:
    """nvidia-smi: CUDA has the total less what the driver reserves (newer drivers say how much)."""
    names = "name,memory.total,memory.reserved"
    lines = _lines("nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader,nounits")
    if not lines:
        names = "name,memory.total"
        lines = _lines("nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader,nounits")
    gpus = []
    for line in lines:
        name, *sizes = (part.strip() for part in line.split(","))
        total, reserved = ([_whole(size) for size in sizes] + [None, None])[:2]
        if not name or total == 0:
            continue
        usable = total - reserved if total and reserved is not None else None
        gpus.append(
            DetectedGPU(
                name, total and total * _MIB, usable * _MIB if usable and usable > 0 else None
            )
        )
    return gpus


def _rocm() -> list[DetectedGPU]:
    """rocm-smi's JSON; its keys differ in spelling from release to release."""
    text = _output("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json")
    try:
        cards = json.loads(text)
    except ValueError:
        return []
    gpus = []
    for card in cards.values() if isinstance(cards, dict) else ():
        if not isinstance(card, dict):
            continue
        values = {str(key).lower(): str(value) for key, value in card.items()}
        size = _whole(values.get("vram total memory (b)", ""))
        series = (values.get(key, "") for key in ("card series", "card model", "device name"))
        name = next((text for text in series if text and not text.startswith("0x")), "")
        if name:
            gpus.append(DetectedGPU(name, size, size))
    return gpus


def _sysfs() -> list[DetectedGPU]:
    """The amdgpu driver's files, where ROCm's tools are not installed."""
    gpus = []
    for device in sorted(SYSFS.glob("card*/device")):
        size = _whole(_text(device / "mem_info_vram_total"))
        if _text(device / "vendor") == _AMD and size:
            name = _text(device / "product_name") or "AMD GPU without a name"
            gpus.append(DetectedGPU(name, size, size))
    return gpus


def _macos() -> list[DetectedGPU]:
    """An Apple chip; `iogpu.wired_limit_mb`, where it is set, is what Metal gives."""
    lines = _lines("sysctl", "-n", "machdep.cpu.brand_string", "hw.memsize")
    if len(lines) < 2 or not lines[0].startswith("Apple"):
        return []
    limit = _whole(_output("sysctl", "-n", "iogpu.wired_limit_mb").strip())
    return [DetectedGPU(lines[0].strip(), _whole(lines[1]), limit * _MIB if limit else None)]


def _whole(text: str) -> int | None:
    """A whole number, or None for `[N/A]` and the like."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _lines(*command: str) -> list[str]:
    return [line for line in _output(*command).splitlines() if line.strip()]


def _output(*command: str) -> str:
    """What a tool prints; nothing where it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
