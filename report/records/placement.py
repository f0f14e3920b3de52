"""Where engines that place a model put it: host and cards, and servers that share it among these.

Bytes are ints, times seconds; what is not known is null.
"""

from typing import Any

from typing_extensions import TypedDict


class DeviceRecord(TypedDict):
    """Bytes that one device, or the host, holds."""

    weights: int
    kv: int
    compute: int
    total: int


class CardShareRecord(TypedDict):
    """Bytes on one of the cards that layers lie on, and its budget."""

    gpu: str | None
    index: int
    layers: int
    weights: int
    kv: int
    compute: int
    overhead: int
    total: int
    total_low: int
    total_high: int
    budget: int


class PlacementRecord(TypedDict):
    """How an engine that fills several memories lays a model over them, and how it is started."""

    device: DeviceRecord
    host: DeviceRecord
    layers: int
    device_layers: int
    host_experts: int
    cards: list[CardShareRecord]
    fits: bool
    file: str
    file_bytes: int
    file_address: str
    file_repository: str
    flags: dict[str, Any]
    command: str
    ollama: dict[str, Any]


class LengthRecord(TypedDict):
    """Prompts of one length, and which part of the sequences they are."""

    tokens: int
    part: float


class ParallelRecord(TypedDict):
    """Sizes that share a model among cards; `experts`: whole experts are spread over the ranks."""

    tensor: int
    pipeline: int
    data: int
    experts: bool


class CardRecord(TypedDict):
    """Bytes of one card: of `requested`, what is not cache, and the cache; beside it the driver's
    context, and graphs that the engine does not count."""

    gpu: str
    memory: int
    requested: int
    weights: int
    activation: int
    activation_low: int
    activation_high: int
    other: int
    other_low: int
    other_high: int
    graphs: int
    graphs_low: int
    graphs_high: int
    cache: int
    cache_low: int
    cache_high: int
    context: int
    context_low: int
    context_high: int
    graphs_beside: int
    graphs_beside_low: int
    graphs_beside_high: int


class ServingRecord(TypedDict):
    """How a server is started, whether it starts, and for how many sequences its cache has room:
    of the asked lengths, and if all are of the longest, at the cache's low end. `measured`: its
    constants were, on cards of this kind. `tokens_per_second`: output of all users together."""

    version: str
    measured: bool
    starts: bool
    may_start: bool
    users: int
    max_model_len: int
    longest_max_model_len: int
    cache_tokens: int
    cache_tokens_low: int
    cache_tokens_high: int
    sequences_at_once: int
    sequences_at_once_if_all_are_longest: int
    parallel: ParallelRecord
    tokens_per_second: float | None
    tokens_per_second_low: float | None
    tokens_per_second_high: float | None
    ttft_alone_s: float | None
    checkpoint: str | None
    flags: dict[str, Any]
    environment: dict[str, str]
    command: str
    cards: list[CardRecord]
