"""Where an engine puts a model that need not lie on one device: what is where, and how fast it is.

For engines that keep layers, experts or all of a model in host memory (`Engine.places`).
"""

from .hardware.gpus import Hardware
from .light_dataclass import dataclass
from .serving import Parallel, Serving

Ends = tuple[float, float, float]
"""An expected value, its low and its high end."""


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes on one device: weights, KV cache, and buffers of a pass."""

    weights: int
    kv: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a model may lie: cards, the bytes of each that may be used, and those of the host.

    `budgets`: one for each of `gpus`, or one for a card that is not named; none: there is no
    card. `ram`: None: nobody said.
    """

    gpus: tuple[Hardware, ...]
    budgets: tuple[int, ...]
    ram: int | None = None
    parallel: Parallel | None = None
    """How the cards share the model; None: as the engine does best."""

    @property
    def gpu(self) -> Hardware | None:
        """The first card; None where none is named."""
        return self.gpus[0] if self.gpus else None

    @property
    def budget(self) -> int | None:
        """Bytes of all cards together; None where there is none."""
        return sum(self.budgets) if self.budgets else None


@dataclass(frozen=True, slots=True)
class CardShare:
    """What one of several cards holds: its layers, bytes beside its share, the ends of its total
    and its budget. `index`: its place among the cards that were named."""

    gpu: str | None
    index: int
    layers: int
    share: Share
    overhead: int
    ends: tuple[int, int]
    budget: int


@dataclass(frozen=True, slots=True)
class Placement:
    """One configuration placed within two budgets.

    `device` is empty where all runs on the processor. `device_layers` of `layers` repeating layers
    are there, the last ones, and of all layers' experts those of the first `host_experts` layers
    are in host memory. `overhead`, `device_ends`: bytes beside the device's share, and the low and
    high end of the device's total. `ttft`, `tpot`: seconds, None without a device that is named.
    """

    device: Share
    layers: int
    device_layers: int
    overhead: int
    device_ends: tuple[int, int]
    kv_bytes_per_token: int
    """Growth of the whole cache with one more token of every sequence, rounding aside."""
    fits: bool
    needed: int
    """Bytes that the smaller budget must have: the device's high end where it fits; else what would
    do with the host memory that there is."""
    command: str
    file: str
    """The GGUF file to get, in words: model, type."""
    file_bytes: int
    host: Share = Share(0, 0, 0)
    host_experts: int = 0
    flags: tuple[tuple[str, str | None], ...] = ()
    """What the command gives the program, beside the file it names."""
    ttft: Ends | None = None
    tpot: Ends | None = None
    notes: tuple[str, ...] = ()
    ollama: tuple[tuple[str, object], ...] = ()
    """The same for ollama: `modelfile`, the model's `name`, `environment`, and what it cannot say,
    `missing`."""
    file_address: str = ""
    """Where the file is, or a search for it; empty where it is at hand."""
    file_repository: str = ""
    """The repository that is known to have the file; empty: none is known."""
    cards: tuple[CardShare, ...] = ()
    """Of `device`, each card's part; cards that stay empty are not there."""

    serving: Serving | None = None
    """How it serves, of engines that hold sequences as there is room."""

    @property
    def on_host_only(self) -> bool:
        return not self.device.total
