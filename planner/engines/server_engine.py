"""What vLLM and SGLang have in common as engines: a part of each card is theirs, users share it.

A server holds sequences as there is room, names its caches by one flag, and offers what every card
of the machine has. A subclass says what it is called, which formats it has and where a model lies.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np

from ..engine import Activation, Engine, Formats, Interval, KVBytes, Slack
from ..errors import BadInput
from ..formats.configuration import Configuration
from ..formats.named import kv_format
from ..formats.space import KVLayout
from ..hardware.gpus import Hardware
from ..memory.overhead import driver_context
from ..models.spec import ModelSpec
from ..placement import Machine
from ..workload import Workload
from .stored_checkpoints import obstacle, remedy

CHUNKS = (2048, 4096, 8192, 16384)


class ServerEngine(Engine):
    """See Engine. `gpus`: the cards of the machine that is planned for, each kind once."""

    title: str
    """As its authors write it."""
    offered: tuple[str, ...]
    """Formats that a 16-bit model can be had in, beside 16 bits."""
    places = True
    several_cards = True
    serves = True

    def __init__(self, gpus: tuple[Hardware, ...] = (), front: str = "") -> None:
        self._gpus = tuple(dict.fromkeys(gpus))
        self.front = front

    @abstractmethod
    def obstacle(self, spec: ModelSpec) -> str | None:
        """Why a model that is understood cannot be planned; None where it can."""

    @abstractmethod
    def caches(self, spec: ModelSpec) -> Sequence[str]:
        """Named formats of the cache that every card has; "" is 16 bits."""

    def on(self, machine: Machine) -> Self:
        return type(self)(machine.gpus, self.front)

    def cannot_run(self, spec: ModelSpec, hardware: Hardware | None = None) -> str | None:
        if not spec.understood:
            return f"nobody knows here whether {self.title} has {spec.model_type}"
        if spec.gguf is not None:
            return "GGUF files are llama.cpp's: --engine llama.cpp"
        return self._stored_obstacle(spec) or self.obstacle(spec)

    def instead(self, spec: ModelSpec) -> str:
        if self._stored_obstacle(spec) is None:
            return super().instead(spec)
        return remedy(self.name, spec)

    def check_stored(self, spec: ModelSpec) -> None:
        """Raises BadInput for a checkpoint that the release does not load."""
        if (why := self._stored_obstacle(spec)) is not None:
            raise BadInput(
                f"{self.name} cannot be planned for {spec.name}: {why}", self.instead(spec)
            )

    def _stored_obstacle(self, spec: ModelSpec) -> str | None:
        """Why the release loads no checkpoint that is quantized so; None where it does."""
        if spec.quantization is None:
            return None
        return obstacle(self.name, self.title, spec.quantization)

    def weight_formats(self, spec: ModelSpec) -> Sequence[str]:
        return ("", *self.offered) if spec.quantization is None else ()

    def chunks(self, workload: Workload) -> tuple[int | None, ...]:
        return CHUNKS

    def formats(
        self,
        spec: ModelSpec,
        workload: Workload,
        groups: Sequence[int | None],
        residuals: Sequence[int],
        protections: tuple[tuple[int, ...], ...],
    ) -> Formats:
        names = tuple(self.caches(spec))
        rows = np.array([[0, _bits(name), _bits(name), 0] for name in names], dtype=np.int64)
        return Formats((KVLayout(),), ((),), rows, tuple((name, name) for name in names))

    def kv_bytes(self, spec: ModelSpec, config: Configuration, workload: Workload) -> KVBytes:
        raise self._without_card()

    def activation(
        self,
        spec: ModelSpec,
        config: Configuration,
        workload: Workload,
        hardware: Hardware | None = None,
    ) -> Activation:
        raise self._without_card()

    def _without_card(self) -> BadInput:
        return BadInput(f"{self.title}'s memory is a part of a card", "name it: --gpu H100")

    def context(self, hardware: Hardware | None) -> Interval:
        return driver_context(hardware)

    def slack(self, config: Configuration, hardware: Hardware | None) -> Slack:
        return Slack((0.0, 0.0, 0.0))


def _bits(name: str) -> int:
    row = kv_format(name) if name else None
    return row.bits if row is not None else 16
