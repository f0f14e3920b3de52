"""What was measured: one JSON line a run, on disk before the next run starts, never edited.

A run is one configuration on one task at one context. Runs that failed are rows too: that a
configuration does not fit, or crashes, is known from then on and is not tried again. Any death
leaves at most one torn line at the end, which is set aside into a `.torn` file beside the rows.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...planner.accuracy.key_noise.attention_noise import AttentionNoise
from ...planner.errors import BadInput, one_line
from ...planner.formats.configuration import Configuration
from ...planner.whole_file import sync_folder, writing
from .lock import ProfileLock
from .torn_line import read_rows, set_torn_line_aside, whole_lines

ROWS = "rows.jsonl"
LOCK = "rows.lock"
DIVERGENCE = "divergence"
"""The task of a row that compares next-token distributions (divergence.py)."""
LAYERS = "layers"
"""The task of the row that a probe of the layers leaves (layer_sensitivity.py): its items are the
KL of each layer's keys, then of each layer's values, then what formats make of the attention
(attention_noise.py). It is no run of a configuration."""
PROBED_LAYERS = "layers"
"""Of a probe's details: how many layers it is about; half of its items where it does not say."""
HARNESS = "lm_eval:"
"""What the names of the evaluation harness's tasks begin with (lm_eval.py)."""
WINDOW = "window"
"""Of a divergence's details: tokens of the windows, where the text is shorter than the context."""

TAIL = "tail"
"""The same: tokens at the end of each window that are compared, 0 where all are."""
POSITIONS = "positions"

Key = tuple[str, int, str, int]
"""(configuration, context, task, seed): what is measured once."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Environment(_Strict):
    """Where a run was made. None: not known, or not there (no GPU)."""

    gpu: str | None = None
    driver: str | None = None
    python: str
    torch: str | None = None
    transformers: str | None = None
    kvpareto: str
    commit: str | None = None

    def versions(self) -> tuple[str | None, ...]:
        """What must agree for two rows to have been measured by the same program."""
        return self.torch, self.transformers, self.kvpareto


class Memory(_Strict):
    """Bytes. Tensors' own sizes; `allocated` and `peak` are torch's allocator's, on a GPU."""

    weights: int = Field(ge=0)
    kv: int = Field(ge=0)
    allocated: int | None = None
    peak: int | None = None


class Record(_Strict):
    """One run. `items` are the scores of the items in their order; for a divergence, the extra
    nats a token of blocks of positions. What could not be measured is None."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    model: str
    fingerprint: str
    """Hash of the planning-relevant fields of the model's config
    (planner/accuracy/calibrations.py)."""
    config: str
    task: str
    kind: str
    """What the task asks of the cache: one of rows.KINDS."""
    context: int = Field(ge=0)
    """Tokens; 0 only of a failure before anything was read."""
    seed: int = Field(ge=0)
    outcome: Literal["ok", "out_of_memory", "crashed"]
    reason: str | None = None
    """Of a failure, in one line; of an early end, why no more items were run."""
    items: tuple[float, ...] = ()
    score: float | None = None
    stderr: float | None = Field(default=None, ge=0)
    reference: float | None = None
    """The unquantized model's score on the same items."""
    retention: float | None = None
    retention_sd: float | None = Field(default=None, ge=0)
    """Error of the paired ratio (one standard deviation)."""
    details: dict[str, float] = Field(default_factory=dict)
    memory: Memory | None = None
    ttft_s: float | None = Field(default=None, ge=0)
    tpot_s: float | None = Field(default=None, ge=0)
    environment: Environment
    started: str
    ended: str

    @model_validator(mode="after")
    def _describes_a_run(self) -> Self:
        """Every reader parses the configuration and takes the logarithm of the tokens."""
        try:
            Configuration.parse(self.config)
        except BadInput as error:
            raise ValueError(f"config: {error.message}") from None
        tokens = self.details.get(WINDOW, float(self.context))
        if self.outcome == "ok" and (self.context < 1 or tokens < 1):
            raise ValueError("context and window are 1 token or more")
        if self.task == LAYERS and self.items:
            self._describes_a_probe()
        return self

    def _describes_a_probe(self) -> None:
        layers = self.details.get(PROBED_LAYERS, len(self.items) / 2)
        if not layers.is_integer() or not 1 <= layers <= len(self.items) / 2:
            raise ValueError("a probe has a cost of keys and one of values for each layer")
        table = self.items[2 * int(layers) :]
        if table:
            AttentionNoise.of(table, int(layers))

    @property
    def probed_layers(self) -> int:
        """Layers of the model that a probe's row is about."""
        return int(self.details.get(PROBED_LAYERS, len(self.items) / 2))

    @property
    def key(self) -> Key:
        return self.config, self.context, self.task, self.seed


def now() -> str:
    """The time as rows write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class RecordFile:
    """The rows of one profile, open for appending by this process alone (a context manager).

    Entering locks the profile and sets a torn last line aside. Raises BadInput for a profile that
    another process is writing, or whose rows cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ROWS
        self.records: list[Record] = []
        self.torn = False
        """Whether a torn line was found and set aside."""
        self._lock = ProfileLock(folder / LOCK)
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self._lock.__enter__()
        try:
            self.torn = set_torn_line_aside(self.path)
            self.records = read_records(self.path)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            with writing(self.path):
                self._descriptor = os.open(self.path, flags, 0o666)
            for folder in (self.path.parent, self.path.parent.parent):  # both may be new
                sync_folder(folder)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._lock.__exit__(kind, error, trace)

    @property
    def done(self) -> set[Key]:
        return {record.key for record in self.records}

    def append(self, record: Record) -> None:
        """Write one row; it is on the disk when this returns. Raises BadInput."""
        if self._descriptor is None:
            raise ValueError("append outside of `with`")
        line = (record.model_dump_json(by_alias=True) + "\n").encode()
        with writing(self.path, "make room on the disk, then go on with --resume"):
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        self.records.append(record)


def read_records(path: Path) -> list[Record]:
    """All whole rows of a file, none where there is no file; a torn last line is passed over.

    Raises BadInput naming the line that is no row.
    """
    data = read_rows(path)
    lines = data[: whole_lines(data)].splitlines()
    return [parse_record(line, f"{path}, line {i}") for i, line in enumerate(lines, 1)]


def parse_record(line: bytes | str, where: str) -> Record:
    """One row. Raises BadInput saying `where`."""
    try:
        return Record.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInput(
            f"{where} is not a calibration row: {place} {one_line(first['msg'], 80)}",
            "restore the file, or move it away and measure again",
        ) from None


def of_other_versions(records: Sequence[Record], here: Environment) -> list[Record]:
    """Rows measured by other versions of torch, transformers or kvpareto than `here`."""
    return [r for r in records if r.environment.versions() != here.versions()]
