"""What is predicted of one configuration: memory, retention and times.

Bytes are ints, times seconds, fractions between 0 and 1; what is not known is null.
"""

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


class PredictedRecord(TypedDict):
    """What is predicted of one configuration."""

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
