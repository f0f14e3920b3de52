"""What a GPU's memory held in each phase of a run, by torch's allocator and by the driver.

High-water marks are the allocator's since the phase began, so a mark must be read where a phase
ends and the next one begins: PeakMemory keeps that order. On a CPU there is nobody to ask, and
every call does nothing.
"""

from typing import Any

from .memory_cap import Cap, DeviceMemory


class PeakMemory:
    """The marks of one run: `peaks` are allocated bytes by phase. `load` and `reserved` are the
    marks that loading left, None where nobody watched."""

    def __init__(self, memory: DeviceMemory | None, load: int | None, reserved: int | None) -> None:
        self.memory = memory
        self.peaks: dict[str, int] = {}
        self._reserved = 0
        if load is not None:
            self.peaks["load"] = load
            self._reserved = reserved or 0

    def mark(self, phase: str) -> None:
        """Keep the phase's high-water marks, and begin a new phase."""
        if self.memory is None:
            return
        allocated, reserved = self.memory.marks()
        self.peaks[phase] = max(allocated, self.peaks.get(phase, 0))
        self._reserved = max(self._reserved, reserved)
        self.memory.start_phase()

    def read(self, phase: str, cap: Cap | None) -> dict[str, Any]:
        """The fields of an Execution that allocator and driver know, asked in `phase` while the
        run still holds its memory; none where an error has made the device useless."""
        memory = self.memory
        if memory is None:
            return {}
        try:
            self.mark(phase)
            context = memory.context()
            workspace = memory.workspace()
        except RuntimeError:  # an error has made the device useless
            return {}
        peaks = {name: self.peaks.get(name, 0) for name in ("load", "prefill", "decode")}
        highest = max(peaks, key=lambda name: peaks[name])
        return {
            "allocated_peak": peaks[highest],
            "peak_phase": highest,
            "workspace": workspace,
            "reserved_peak": self._reserved,
            "context_bytes": context,
            "device_used": context + self._reserved,
            "allowed": cap.allowed if cap is not None else None,
        }
