"""The interface of an engine: the questions that the planner asks of whatever runs a model.

An engine is one folder under planner/engines/. The planner asks it which configurations it can
run, what they take and how it is started, and knows none by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from .errors import BadInput
from .formats import named
from .formats.configuration import Configuration
from .formats.space import Ints, KVLayout, Space
from .hardware.gpus import Hardware
from .light_dataclass import dataclass
from .models.spec import ModelSpec
from .placement import Machine, Placement
from .workload import Workload

Ends = tuple[float, float, float]
"""An expected value, its low and its high end."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An expected value and its limits, bytes."""

    expected: int
    low: int
    high: int

    def __add__(self, more: "Interval") -> "Interval":
        return Interval(self.expected + more.expected, self.low + more.low, self.high + more.high)


@dataclass(frozen=True, slots=True)
class Slack:
    """Reserved but unused bytes: expected, low and high. Each is a part of the bytes that come and
    go (peak - weights), a part of those beyond the cache, and a number of its own; the formula:
    memory/allocator_slack.py."""

    moving: Ends
    beyond: Ends = (0.0, 0.0, 0.0)
    fixed: Ends = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class KVBytes:
    """Bytes for context + output tokens of the whole batch.

    `per_token` is the growth for one further token of every sequence at that length (its average
    over one token block where tokens are packed in blocks, rounded down); `fixed` is the rest:
    total = per_token * tokens + fixed.
    """

    total: int
    per_token: int
    fixed: int


@dataclass(frozen=True, slots=True)
class Activation:
    """Bytes above the weights, caches included.

    `prefill_peak`, `decode_peak`: the most alive during prefill and during decoding.
    `resident`: alive between the two. `room`: what the allocator needs for it all; more than is
    alive at once where chunks are captured in pieces (runtime/generation/piecewise_graphs.py),
    whose graphs keep their blocks to themselves.
    """

    prefill_peak: int
    decode_peak: int
    resident: int
    room: int


@dataclass(frozen=True, slots=True)
class Formats:
    """KV formats that an engine can run: the axes of a Space, and `rows` [F, 4] of layout, K bits,
    V bits and protection; `names` of K's and V's format [F], where they go by names."""

    layouts: tuple[KVLayout, ...]
    protections: tuple[tuple[int, ...], ...]
    rows: Ints
    names: tuple[tuple[str, str], ...] = ()


class Engine(ABC):
    """What runs a model. One instance an engine, in planner/engines/<name>/."""

    name: str
    """As --engine takes it and JSON shows it; also the key of its row in latency.json."""

    front: str = ""
    """The program that people run the engine in, where it was asked for by that name."""
    quantizes_rope: bool = False
    """Whether it keeps latent attention's rotary keys in fewer than 16 bits (`+rope8`)."""
    rounds_rows: bool = False
    """Whether it multiplies prompts' rows with packed weights in 8 bits (`w4a8`)."""
    recent_scans: bool = False
    """Whether recurrent layers' memory is counted as transformers runs them since 5.20."""
    places: bool = False
    """Whether it lays a model over memories by itself, of hosts or of several cards: place()."""
    several_cards: bool = False
    """Whether it fills more than one card."""
    serves: bool = False
    """Whether it holds the sequences of many users as there is room: several lengths may be asked,
    and its placements say how it serves."""

    def __str__(self) -> str:
        return self.name

    def cannot_run(self, spec: ModelSpec, hardware: Hardware | None = None) -> str | None:
        """Why the engine does not run this model there; None where it does. Without a GPU named,
        this machine is meant."""
        return None

    def refuses(self, spec: ModelSpec, hardware: Hardware | None = None) -> str | None:
        """Why no plan is made at all; None where one is, if only to show what would be needed: of a
        model that is not understood, and of an engine that would start no server with it."""
        return self.cannot_run(spec, hardware) if spec.understood or self.serves else None

    def instead(self, spec: ModelSpec) -> str:
        """What to do with a model that cannot_run() refuses: a hint."""
        if spec.gguf is not None:
            return "--engine llama.cpp plans GGUF files"
        return "without --engine the plan is for kvpareto's own runtime"

    def loaded(self, spec: ModelSpec) -> ModelSpec:
        """The model with the tensors that this engine loads."""
        return spec

    def dequantized(self, spec: ModelSpec) -> ModelSpec:
        """The model whose weights it runs or rounds: of a quantized checkpoint that it dequantizes
        at load, its 16-bit self."""
        return spec

    def takes_original(self, spec: ModelSpec) -> bool:
        """Whether its weights are made of the model that a quantized checkpoint was made from."""
        return False

    def check_formats(self, config: Configuration) -> None:
        """Raises BadInput for a named format (formats/named.py) that the engine does not run, and
        for what only our runtime quantizes."""
        if config.rope_bits < 16 and not self.quantizes_rope:
            raise BadInput(
                f"{self.name} keeps no rotary keys at {config.rope_bits} bits, in {config}",
                "leave +rope out, or --engine kvpareto",
            )
        if config.activation_bits < 16 and not self.rounds_rows:
            raise BadInput(
                f"{self.name} multiplies activations in 16 bits, not as {config} says",
                f"write w{config.weight_bits}a16, or --engine kvpareto",
            )
        weights, keys, values = config.weight_format, config.k_format, config.v_format
        rows = [named.weight_format(weights), named.kv_format(keys), named.kv_format(values)]
        for row in rows:
            if row is not None and self.name not in row.engines:
                raise BadInput(
                    f"{self.name} does not run {row.name}, in {config}",
                    f"{row.name} is a format of {' and '.join(row.engines)}: --engine "
                    f"{row.engines[0]}",
                )

        if self.name != named.OURS and (keys or values) and config.has_layout:
            raise BadInput(
                f"in {self.name}, {keys or values} says itself what shares a scale: {config}",
                "leave granularity and options out, or --engine kvpareto",
            )

    def weight_formats(self, spec: ModelSpec) -> Sequence[str]:
        """The named formats of weights that it can run this model in; none: it takes the
        grammar's bits, as the checkpoint allows."""
        return ()

    def notes(self, spec: ModelSpec, config: Configuration, workload: Workload) -> tuple[str, ...]:
        """What a reader should know of the weights and the KV bytes of this configuration."""
        return ()

    def behind(self, front: str) -> "Engine":
        """The engine as the program `front` runs it."""
        return self

    def on(self, machine: Machine) -> "Engine":
        """The engine with the formats that it has on these cards."""
        return self

    def chunks(self, workload: Workload) -> tuple[int | None, ...]:
        """The prefill chunks worth choosing; none: any of the grammar's, and one shot."""
        return ()

    def place(
        self, spec: ModelSpec, config: Configuration, workload: Workload, machine: Machine
    ) -> Placement:
        """`config` within the machine's memories. Raises BadInput where the engine cannot run it,
        or places nothing."""
        raise BadInput(f"{self.name} keeps all of a model on one device", "leave --ram out")

    def needed(
        self, spec: ModelSpec, config: Configuration, workload: Workload, machine: Machine
    ) -> int:
        """Bytes that a machine must have for it, as `place` says; without its seconds."""
        return self.place(spec, config, workload, machine).needed

    @abstractmethod
    def formats(
        self,
        spec: ModelSpec,
        workload: Workload,
        groups: Sequence[int | None],
        residuals: Sequence[int],
        protections: tuple[tuple[int, ...], ...],
    ) -> Formats:
        """The KV formats it can run, of these group sizes, windows and sets of protected layers."""

    @abstractmethod
    def kv_bytes(self, spec: ModelSpec, config: Configuration, workload: Workload) -> KVBytes:
        """KV bytes of context + output tokens. Raises BadInput for a cache it cannot hold."""

    def kv_table(self, spec: ModelSpec, space: Space, workload: Workload) -> Ints:
        """kv_bytes().total of a whole space, [F, C], or [F, 1] where the chunk changes nothing."""
        rows = [
            [self.kv_bytes(spec, space.at(16, f, chunk), workload).total for chunk in space.chunks]
            for f in range(len(space.layout))
        ]
        return np.array(rows, dtype=np.int64)

    @abstractmethod
    def activation(
        self,
        spec: ModelSpec,
        config: Configuration,
        workload: Workload,
        hardware: Hardware | None = None,
    ) -> Activation:
        """Live bytes of prefill and decode above the weights, caches included; on `hardware`,
        where kernels differ by it."""

    def cache_kinds(self, spec: ModelSpec, space: Space, hardware: Hardware | None) -> Ints:
        """A number for each format [F]: those of one number have the same activation() beyond
        their KV bytes."""
        return np.zeros(len(space.layout), dtype=np.int64)

    def weight_kinds(self, spec: ModelSpec, weights: Sequence[int]) -> Sequence[object]:
        """A key for each number of weight bits: activation() of those of one key differs by
        scratch of one size in every pass."""
        return [0] * len(weights)

    @abstractmethod
    def context(self, hardware: Hardware | None) -> Interval:
        """Device memory outside torch's allocator: the driver's context, libraries, kernels."""

    @abstractmethod
    def slack(self, config: Configuration, hardware: Hardware | None) -> Slack:
        """What the allocator reserves beyond the bytes in use at the worst moment."""
