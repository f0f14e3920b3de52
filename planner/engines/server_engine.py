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

CHUNKS = (2048, 4096, 8192, 16384)
LOADS = (
    "fp8",
    "awq",
    "gptq",
    "auto-round",
    "mxfp4",
    "modelopt",
    "compressed-tensors",
    "bitsandbytes",
)
"""Methods of checkpoints that both load."""
GPTQ_BITS = (4, 8, 16)
"""Widths for which both have kernels (Marlin's, of symmetric codes); 16 where no matrix is left."""


class ServerEngine(Engine):
    """See Engine. `gpus`: the cards of the machine that is planned for, each kind once."""

    title: str
    """As its authors write it."""
    offered: tuple[str, ...]
    """Formats that a 16-bit model can be had in, beside 16 bits."""
    loads: tuple[str, ...]
    """Methods of `quantization_config` whose checkpoints its release loads."""
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

    def check_stored(self, spec: ModelSpec) -> None:
        """Raises BadInput for a checkpoint that the release does not load."""
        if (obstacle := self._stored_obstacle(spec)) is not None:
            raise BadInput(
                f"{self.name} cannot be planned for {spec.name}: {obstacle}",
                "give the model that it was quantized from",
            )

    def _stored_obstacle(self, spec: ModelSpec) -> str | None:
        """Why the release loads no checkpoint that is quantized so; None where it does."""
        stored = spec.quantization
        if stored is None:
            return None
        if stored.method not in self.loads:
            return (
                f"{self.title} loads no checkpoints of {stored.method}, but of "
                f"{', '.join(self.loads)} and 16 bits"
            )
        if stored.method == "gptq" and stored.bits not in GPTQ_BITS:
            return f"{self.title} loads GPTQ of 4 and 8 bits, not of {stored.bits}"
        return None

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
