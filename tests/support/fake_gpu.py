"""What only a GPU has, played on the CPU: FakeGPU tells the numbers of a script."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from kvpareto.calibration.execution.loaded_model import OpenModel
from kvpareto.calibration.execution.memory_cap import Cap

MB = 10**6


class FakeGPU:
    """DeviceMemory's numbers: what is allocated and reserved in each phase, and a context that
    grows by what a first pass loads."""

    def __init__(self, contexts: tuple[int, ...] = (500 * MB, 520 * MB)) -> None:
        self.contexts = list(contexts)
        self.highs = [(300 * MB, 400 * MB), (250 * MB, 410 * MB), (0, 0)]
        self.calls: list[str] = []
        self.caps: list[int] = []
        self._memory = self

    def context(self) -> int:
        return self.contexts.pop(0) if len(self.contexts) > 1 else self.contexts[0]

    def marks(self) -> tuple[int, int]:
        return self.highs.pop(0)

    def allocated(self) -> int:
        return 200 * MB

    def workspace(self) -> int:
        return 33 * MB

    def wait(self) -> None:
        self.calls.append("wait")

    def settle(self) -> None:
        self.calls.append("settle")

    def start_phase(self) -> None:
        self.calls.append("phase")

    def limit(self, size: int | None) -> None:
        self.caps.append(-1 if size is None else size)

    @contextmanager
    def held_to(self, budget: int | None) -> Iterator[Cap | None]:
        if budget is None:
            yield None
            return
        cap = Cap(self, budget)  # type: ignore[arg-type]
        cap.tighten()
        yield cap
        self.limit(None)


def on_gpu(opened: OpenModel, gpu: FakeGPU) -> OpenModel:
    class OnGPU(OpenModel):
        memory = gpu  # type: ignore[assignment]

    values = {field.name: getattr(opened, field.name) for field in fields(OpenModel)}
    return OnGPU(**(values | {"peak": 100 * MB, "reserved": 120 * MB}))
