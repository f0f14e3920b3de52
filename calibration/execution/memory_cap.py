"""What a GPU's memory holds, by its driver and by torch's allocator, and a hard cap on it.

The cap. A process may use `budget` bytes of the device, as the driver counts them:

    device used = reserved by torch's allocator + context

`context` is everything outside the allocator: the CUDA context, library code and kernels, graphs.
It is measured (used, by cudaMemGetInfo, less reserved), and the allocator is held to

    cap = budget - context - MARGIN

by torch.cuda.set_per_process_memory_fraction, so that an allocation beyond it raises
OutOfMemoryError, after cached blocks were given back. Libraries load as they are first used, so
the context grows while a model runs: `tighten` measures again after a first pass, MARGIN is what
may still come, and who holds a run to a budget compares `used` with it at the end.

Bytes that other processes hold are not ours: what nvidia-smi reports before torch has made its
context is taken off. Processes that start or end meanwhile are counted wrongly; a GPU of one's own
is wanted for a verification.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

MARGIN = 32 * 2**20
"""Bytes of the budget left for libraries that load after the last measurement of the context."""
EXPANDABLE = "expandable_segments:True"
_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def prefer_expandable_segments() -> None:
    """Have torch's allocator map memory where it needs it, instead of in blocks that leave holes.

    Only before torch first uses CUDA; settings of the user's own stay.
    """
    if not any(os.environ.get(name) for name in _SETTINGS):
        os.environ[_SETTINGS[0]] = EXPANDABLE


def allocator_settings() -> str | None:
    """The settings that torch's allocator was started with; None for its defaults."""
    return next((os.environ[name] for name in _SETTINGS if os.environ.get(name)), None)


class DeviceMemory:
    """One GPU. Bytes throughout. Create it before the first tensor: the driver is asked then for
    what other processes hold."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.others = _others(device.index or 0)
        torch.cuda.init()

    def wait(self) -> None:
        """Until the device has done what it was given."""
        torch.cuda.synchronize(self.device)

    def used(self) -> int:
        """What the driver counts for this process."""
        self.wait()
        free, total = torch.cuda.mem_get_info(self.device)
        return int(total - free - self.others)

    def reserved(self) -> int:
        return int(torch.cuda.memory_reserved(self.device))

    def context(self) -> int:
        """Device memory of this process outside torch's allocator."""
        return self.used() - self.reserved()

    def allocated(self) -> int:
        self.wait()
        return int(torch.cuda.memory_allocated(self.device))

    def start_phase(self) -> None:
        """Forget the high-water marks so far."""
        self.wait()
        torch.cuda.reset_peak_memory_stats(self.device)

    def marks(self) -> tuple[int, int]:
        """High-water marks of allocated and reserved bytes since the phase began."""
        self.wait()
        allocated = torch.cuda.max_memory_allocated(self.device)
        return int(allocated), int(torch.cuda.max_memory_reserved(self.device))

    def load_libraries(self) -> None:
        """Multiply and attend once, so that the context counts what every run loads; the
        allocator is left as it was."""
        for bias in (None, torch.zeros(64, dtype=torch.bfloat16, device=self.device)):
            x = torch.ones((64, 64), dtype=torch.bfloat16, device=self.device)
            torch.nn.functional.linear(x, x, bias)
        q = torch.ones((1, 1, 64, 64), dtype=torch.bfloat16, device=self.device)
        torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
        del x, q, bias
        self.settle()

    def settle(self) -> None:
        """Give back what is cached, libraries' workspaces included."""
        self.workspace()
        torch.cuda.empty_cache()

    def workspace(self) -> int:
        """Bytes of cuBLAS' workspaces, which are let go of; the next product takes them anew."""
        before = self.allocated()
        clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
        if clear is not None:
            clear()
        return before - self.allocated()

    @contextmanager
    def held_to(self, budget: int | None) -> Iterator["Cap | None"]:
        """The allocator capped so that this process stays within `budget`; None: no cap."""
        if budget is None:
            yield None
            return
        cap = Cap(self, budget)
        try:
            cap.tighten()
            yield cap
        finally:
            self.limit(None)

    def limit(self, size: int | None) -> None:
        total = torch.cuda.mem_get_info(self.device)[1]
        share = 1.0 if size is None else min(max(size, 0) / total, 1.0)
        torch.cuda.set_per_process_memory_fraction(share, self.device)


class Cap:
    """A budget in force on a device."""

    def __init__(self, memory: DeviceMemory, budget: int) -> None:
        self.budget = budget
        self.allowed = 0
        """What the allocator may reserve."""
        self._memory = memory

    def tighten(self) -> None:
        """Measure the context again and hold the allocator to what it leaves."""
        self.allowed = allowed_bytes(self.budget, self._memory.context())
        self._memory.limit(self.allowed)


def allowed_bytes(budget: int, context: int) -> int:
    """What the allocator may reserve of a budget, beside a context of that many bytes."""
    return max(budget - context - MARGIN, 0)


def numbered(device: str) -> torch.device:
    """A device by name; "cuda" with the number of the GPU that is in use, or is going to be."""
    named = torch.device(device)
    if named.type != "cuda" or named.index is not None:
        return named
    return torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_initialized() else 0)


def memory_of(device: torch.device) -> DeviceMemory:
    """The device's memory, its libraries loaded. The first call for a device asks what other
    processes hold, and has to come before torch makes a context there."""
    return _memory_of(device.index or 0)


@lru_cache(maxsize=8)
def _memory_of(index: int) -> DeviceMemory:
    memory = DeviceMemory(torch.device("cuda", index))
    memory.load_libraries()
    return memory


def _others(index: int) -> int:
    """Bytes that other processes hold, as nvidia-smi says; 0 where it cannot be known, which is
    also once torch has a context: its own bytes would be among them."""
    if torch.cuda.is_initialized():
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    name = visible[index].strip() if index < len(visible) and visible[index] else str(index)
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [*query, f"--id={name}"], capture_output=True, text=True, timeout=10, check=True
        )
        return int(float(done.stdout.split()[0]) * 2**20)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0
