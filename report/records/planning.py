"""Documents of `plan`, `plan --max-context` and `estimate`.

Bytes are ints, times seconds, fractions between 0 and 1; what is not known is null.
"""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from .placement import LengthRecord, PlacementRecord, ServingRecord
from .predicted import PredictedRecord


class AskedRecord(TypedDict):
    """Which model and engine a document is about, and the workload. `front`: the name that the
    engine was asked for by, where that is another program's (ollama)."""

    schema: Literal[1]
    model: str
    engine: str
    front: NotRequired[str]
    context: int
    output: int
    batch: int
    lengths: NotRequired[list[LengthRecord]]
    parameters: int
    dtype: str
    parameters_low: int
    parameters_high: int


class PointRecord(AskedRecord, PredictedRecord):
    """One configuration under one workload with everything that is predicted of it."""

    placement: NotRequired[PlacementRecord]
    serving: NotRequired[ServingRecord]


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


class QuestionRecord(AskedRecord):
    """What was asked of which model."""

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
    budget_typed: NotRequired[bool]
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
