"""Documents of `calibrate` and `verify`."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from .predicted import PredictedRecord

Side = Literal["inside", "better", "worse"]
Unit = Literal["bytes", "seconds", "fraction", "tokens", "tokens per second"]


class CalibrationRowRecord(TypedDict):
    """One measured task of one configuration."""

    config: str
    context: int
    task: str
    outcome: str
    score: float | None
    retention: float | None
    retention_sd: float | None


class CalibrationRecord(TypedDict):
    """`calibrate`."""

    schema: Literal[1]
    model: str
    folder: str
    reason: str
    configurations: int
    failed: int
    expected_error: float | None
    expected_everywhere: float | None
    held_out: dict[str, Any] | None
    protect: list[int]
    breaks: int | None
    broken: list[str]
    fitted: bool
    findings: list[str]
    rows: list[CalibrationRowRecord]


class TermRecord(TypedDict):
    """A number beside its prediction; `side` is null where nothing is judged, `note` says why."""

    name: str
    unit: Unit
    predicted: float | None
    low: float | None
    high: float | None
    measured: float | None
    difference: float | None
    inside: bool | None
    side: Side | None
    note: str


class CapRecord(TypedDict):
    """How the budget was held, and what the device held at most."""

    how: str
    budget: int | None
    allowed: int | None
    context: int | None
    margin: int | None
    device_used: int | None
    counted: int | None


class ScoredTaskRecord(TypedDict):
    """A task's score and retention beside the prediction."""

    task: str
    kind: str
    items: int
    score: float
    score_stderr: float
    reference: float | None
    reference_from: str | None
    retention: float
    retention_sd: float | None
    low: float
    high: float
    level: float
    predicted: float
    predicted_low: float
    predicted_high: float
    inside: bool | None
    side: Side | None
    note: str


class OverallRetentionRecord(TypedDict):
    """The retention that the plan promised, and the measured one of the same kinds."""

    task: str | None
    predicted: float
    low: float
    high: float
    level: float
    provenance: str
    measured: float | None
    kinds: list[str]


class CorrectedPointRecord(PredictedRecord):
    """What to run instead."""


class CorrectionRecord(TypedDict):
    """A plan that takes the measurement into account."""

    budget: int
    margin: int
    because: str
    fits: bool
    recommended: CorrectedPointRecord | None
    reason: str


class ReceiptRecord(TypedDict):
    """`verify`. `execution` is the run as it is recorded; `error`, `hint`, `fits` and `exit_code`
    are there where it is not verified."""

    schema: Literal[1]
    verified: bool
    verdict: str
    wrong: list[str]
    model: str
    fingerprint: str
    config: str
    engine: str
    context: int
    output: int
    batch: int
    random_weights: bool
    device: Literal["cuda", "cpu"]
    gpu: str | None
    budget: int | None
    outcome: Literal["ok", "out_of_memory", "crashed", "refused"]
    term: str | None
    cap: CapRecord
    terms: list[TermRecord]
    peak_phase: str | None
    tasks: list[ScoredTaskRecord]
    retention: OverallRetentionRecord
    corrected: CorrectionRecord | None
    rows_written: int
    execution: dict[str, Any]
    notes: list[str]
    fits: NotRequired[bool]
    error: NotRequired[str]
    hint: NotRequired[str]
    exit_code: NotRequired[int]


class UnplannedRecord(TypedDict):
    """A budget and a context for which nothing is recommended."""

    budget: int
    context: int
    reason: str


class SweepRecord(TypedDict):
    """`verify` of several budgets, contexts or points."""

    schema: Literal[1]
    verified: bool
    verdict: str
    model: str | None
    receipts: list[ReceiptRecord]
    unplanned: list[UnplannedRecord]
    fits: NotRequired[bool]
    error: NotRequired[str]
    hint: NotRequired[str]
    exit_code: NotRequired[int]
