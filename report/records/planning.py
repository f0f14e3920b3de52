"""Documents of `plan`, `plan --max-context` and `estimate`.

Bytes are ints, times seconds, fractions between 0 and 1; what is not known is null.
"""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class MemoryRecord(TypedDict):
    """Bytes, term by term; `_low` and `_high` are ends of intervals."""

    weights: int
    kv: int
    activation: int
    overhead: int
    total: int
    total_low: int
    total_high: int
    allocated_resident: int
    allocated_peak: int
    paper_total: int
    weights_low: int
    weights_high: int
    kv_low: int
    kv_high: int


class RetentionRecord(TypedDict):
    """Score under the configuration over the unquantized model's, with the interval's ends."""

    retention: float
    low: float
    high: float


class AccuracyRecord(RetentionRecord):
    """The retention of `task` (the weakest generated kind, or the one asked), and of all kinds."""

    level: float
    provenance: str
    task: str
    tasks: dict[str, RetentionRecord]


class LatencyRecord(TypedDict):
    """Ends of the intervals of TTFT and TPOT, and how they were predicted."""

    kind: str
    ttft_low_s: float
    ttft_high_s: float
    tpot_low_s: float
    tpot_high_s: float


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


class PointRecord(TypedDict):
    """One configuration under one workload with everything that is predicted of it."""

    schema: Literal[1]
    model: str
    engine: str
    context: int
    output: int
    batch: int
    parameters: int
    dtype: str
    parameters_low: int
    parameters_high: int
    config: str
    memory: MemoryRecord
    kv_bytes_per_token: int
    kv_bytes_per_token_low: int
    kv_bytes_per_token_high: int
    kv_fixed_bytes: int
    kv_fixed_bytes_low: int
    kv_fixed_bytes_high: int
    accuracy: AccuracyRecord
    ttft_s: float | None
    tpot_s: float | None
    latency: LatencyRecord | None
    placement: NotRequired[PlacementRecord]
    serving: NotRequired[ServingRecord]
    lengths: NotRequired[list[LengthRecord]]


class EstimateRecord(PointRecord):
    """`estimate`."""

    warnings: list[str]


class GpuMemoryRecord(TypedDict):
    """Bytes of all GPUs: the vendor's, what a program gets, and what is kept back of it."""

    marketing: int
    reported: int
    estimated: bool
    source: str
    reserve: int | None


class QuestionRecord(TypedDict):
    """What was asked of which model."""

    schema: Literal[1]
    model: str
    engine: str
    context: int
    output: int
    batch: int
    parameters: int
    dtype: str
    parameters_low: int
    parameters_high: int
    fingerprint: str
    model_path: str | None
    budget: int
    gpu: str | None
    gpus: NotRequired[list[str]]
    gpu_memory: GpuMemoryRecord | None
    objective: Literal["accuracy", "latency", "memory"]
    max_loss: float | None
    task: str | None
    accept_risk: bool
    full_logits: bool
    lengths: NotRequired[list[LengthRecord]]
    ttft_target_s: NotRequired[float]
    tpot_target_s: NotRequired[float]
    parallel_asked: NotRequired[str]


class RelativeTimesRecord(TypedDict):
    """TTFT and TPOT in multiples of the recommended configuration's."""

    ttft: float
    tpot: float


class RelativeLatencyRecord(TypedDict):
    """Relative times of the shown configurations on a reference GPU, where none was named."""

    gpu: str
    points: dict[str, RelativeTimesRecord]


class CommandRecord(TypedDict):
    """What to type next, ready for a POSIX shell."""

    label: str
    command: str


class ElsewhereRecord(TypedDict):
    """The nearest that another engine can do, by its names, and the command that plans it."""

    engine: str
    config: str
    command: str


class OwnRuntimeRecord(TypedDict):
    """Our own runtime's plan for the same question, and what a server's plan takes more (bytes)
    and loses (retention) against it."""

    config: str
    total_high: int
    retention: float
    low: float
    bytes_more: int
    retention_lost: float


class ComparedRecord(TypedDict):
    """One engine's plan of `--engine any`; nulls where it has none. `why_not`: why it is not
    taken."""

    engine: str
    taken: bool
    why_not: str | None
    config: str | None
    retention: float | None
    low: float | None
    total_high: int | None
    ttft_s: float | None
    tpot_s: float | None
    command: str | None


class SnippetRecord(TypedDict):
    """A server's start as docker or k8s text."""

    kind: Literal["docker", "k8s"]
    text: str


class PlanRecord(QuestionRecord):
    """`plan`: the recommendation, the frontier it stands on, and the words about both."""

    fits: bool
    safe: bool
    recommended: PointRecord
    reasons: list[str]
    steps: list[str]
    next_up: PointRecord | None
    next_down: PointRecord | None
    frontier: list[PointRecord]
    shown: list[str]
    relative_latency: RelativeLatencyRecord | None
    pace: RelativeLatencyRecord | None
    considered: int
    fitting: int
    runnable: bool
    ram: NotRequired[int | None]
    host_only: NotRequired[bool]
    front: NotRequired[str]
    commands: list[CommandRecord]
    own_runtime: NotRequired[OwnRuntimeRecord | None]
    because: NotRequired[str]
    compared: NotRequired[list[ComparedRecord]]
    snippet: NotRequired[SnippetRecord]
    elsewhere: list[ElsewhereRecord]
    warnings: list[str]


class LongestRecord(PointRecord):
    """The longest context of one configuration, and the prediction there."""

    max_context: int
    limited_by_model: bool
    limited_by: NotRequired[str]


class MaxContextRecord(QuestionRecord):
    """`plan --max-context`."""

    max_context: list[LongestRecord]
    warnings: list[str]
