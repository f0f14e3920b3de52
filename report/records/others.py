"""Documents of `profiles` and `report`, of failures, and of help and version."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class MeasuredModelRecord(TypedDict):
    """A pretrained model whose measurements ship: how many points, on which weights and GPU."""

    model: str
    points: int
    weights: str
    gpu: str


class ProfilesListRecord(TypedDict):
    """`profiles list`."""

    schema: Literal[1]
    models: list[str]
    measured: list[MeasuredModelRecord]
    gpus: list[str]
    calibrations: list[str]


class ProfileRecord(TypedDict):
    """`profiles show`: `facts` for a person, `raw` the same as numbers."""

    schema: Literal[1]
    kind: Literal["model", "gpu", "calibration"]
    name: str
    facts: dict[str, str | list[str] | None]
    raw: dict[str, Any]


class VerdictRecord(TypedDict):
    """How parameters or caches compare: `why` and the names of `groups` where they do not."""

    verdict: str
    why: NotRequired[str]
    groups: NotRequired[list[str]]


class CheckedConfigRecord(TypedDict):
    """One config: `total` parameters as planned, null where it was not read."""

    name: str
    model_type: str
    parameters: VerdictRecord
    total: int | None
    cache: VerdictRecord | None
    notes: list[str]


class CheckRecord(TypedDict):
    """`profiles check`; `counts` of each verdict, of parameters and of caches. `error`, `hint`,
    `fits` and `exit_code` are there where it is not verified."""

    schema: Literal[1]
    folder: str
    verified: bool
    counts: dict[Literal["parameters", "cache"], dict[str, int]]
    configs: list[CheckedConfigRecord]
    fits: NotRequired[bool]
    error: NotRequired[str]
    hint: NotRequired[str]
    exit_code: NotRequired[int]


class ExportRecord(TypedDict):
    """`profiles export`."""

    schema: Literal[1]
    name: str
    rows: int
    file: str
    affine: str | None
    """Where its affine maps were written; null where it has none."""


class ImportRecord(TypedDict):
    """`profiles import`; `maps_missing`: its affine maps were not beside the file."""

    schema: Literal[1]
    name: str
    folder: str
    maps_missing: bool


class ReportRecord(TypedDict):
    """`report`: the page, its size in bytes, the figures, and what could not be drawn."""

    schema: Literal[1]
    report: str
    bytes: int
    figures: list[str]
    notes: list[str]


class FailureRecord(TypedDict):
    """Every exit with 1, 2, 3 or 130; further fields hold the numbers of the prose."""

    schema: Literal[1]
    fits: Literal[False]
    error: str
    hint: str
    exit_code: int


class TextRecord(TypedDict):
    """Help and version."""

    schema: Literal[1]
    text: str
