"""Accuracy rows: one score under a configuration against the unquantized model's score.

One schema for every row the regression may learn from, whoever measured it: published tables and
this machine's calibration runs. `provenance` says which; the fit treats the rows alike, so
calibrated rows of a model simply outnumber and outweigh what was published.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...planner.accuracy.coded_noise import weights_worth, worth
from ...planner.accuracy.format_arrays import turned_by_maps
from ...planner.accuracy.measured_configs import MeasuredRetention
from ...planner.accuracy.task_kinds import REPORTED_KINDS, ScoredTask
from ...planner.formats.configuration import Configuration, Granularity

KINDS = (*REPORTED_KINDS, "perplexity")
"""What a task asks of the cache: task_kinds.py; perplexity is exp(-extra nats per token), the share
of the probability that is kept."""


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One score. Bits are floats because a float format is entered as the integer grid with
    the same error (fp8 = 6.0, fp4 = 3.6); 0 in `group_size` is the whole head."""

    model: str
    task: str
    kind: str
    context: int
    weight_bits: float
    k_bits: float
    v_bits: float
    granularity: str
    group_size: int
    block_tokens: int
    residual: int
    smoothing: bool
    rotate_k: bool
    rotate_v: bool
    protected_layers: tuple[int, ...]
    protected_bits: float
    retention: float
    sd: float
    """Sampling error of `retention` (one standard deviation), from the number of items."""
    weight: float
    """How far the row is trusted: 1 first-hand, 0.5 transcribed or mapped, 0.25 both."""
    provenance: str
    source: str
    chance: float = 0.0
    """What guessing scores, and `baseline` what the unquantized model does (0: not known), as
    shares of all items."""
    baseline: float = 0.0
    method: str = ""
    """How weights were quantized, where it is not as this product does it."""
    exact_prompt: bool = False
    """Whether the prompt was attended in 16 bits before its keys were quantized: the answer's first
    token then knows no noise."""
    float_keys: bool = False
    """Whether keys are floats of few bits, whose error is relative to each value."""

    @property
    def quantizes_cache(self) -> bool:
        """Whether the row is about a quantized cache; else it is about weights alone."""
        return self.k_bits < 16 or self.v_bits < 16

    @property
    def scored(self) -> ScoredTask:
        return ScoredTask(self.task, self.chance, self.baseline or None)

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.granularity not in tuple(Granularity):
            raise ValueError(f"row of {self.model}: unknown kind or granularity")
        if self.provenance not in ("calibrated", "published"):
            raise ValueError(f"row of {self.model}: unknown provenance {self.provenance!r}")


def row_of(
    config: Configuration,
    model: str,
    task: str,
    kind: str,
    context: int,
    kept: MeasuredRetention,
    source: str = "measured",
    head_dim: int = 128,
) -> AccuracyRow:
    """A measured retention as a row of the regression; heads of `head_dim` channels decide what
    tables and clipped ranges over a whole head are worth."""
    protected = config.protection
    k_bits, v_bits = worth(config, head_dim)
    keys_turned, values_turned = turned_by_maps(config)
    return AccuracyRow(
        model=model,
        task=task,
        kind=kind,
        context=context,
        weight_bits=weights_worth(config),
        k_bits=k_bits,
        v_bits=v_bits,
        granularity=str(config.granularity),
        group_size=config.group_size or 0,
        block_tokens=config.block_tokens or 1,
        residual=config.residual,
        smoothing=config.smoothing or keys_turned,
        rotate_k=config.rotation or keys_turned,
        rotate_v=config.rotation or values_turned,
        protected_layers=protected.layers if protected else (),
        protected_bits=float(min(protected.k_bits, protected.v_bits) if protected else 16),
        retention=kept.retention,
        sd=kept.sd,
        weight=1.0,
        provenance="calibrated",
        source=source,
    )


def read_rows(path: Path) -> list[AccuracyRow]:
    """Rows of a CSV written by `write_rows`."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(line) for line in csv.DictReader(file)]


def _row(line: dict[str, str]) -> AccuracyRow:
    values: dict[str, Any] = {f.name: _read(f.name, line[f.name]) for f in fields(AccuracyRow)}
    return AccuracyRow(**values)


def write_rows(path: Path, rows: Iterable[AccuracyRow]) -> None:
    names = [f.name for f in fields(AccuracyRow)]
    write_table(path, names, ([_text(getattr(row, n)) for n in names] for row in rows))


def write_table(path: Path, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


_INTS = ("context", "group_size", "block_tokens", "residual")
_FLOATS = (
    *("weight_bits", "k_bits", "v_bits", "protected_bits", "retention", "sd", "weight"),
    *("chance", "baseline"),
)
_BOOLS = ("smoothing", "rotate_k", "rotate_v", "exact_prompt", "float_keys")


def _read(name: str, text: str) -> object:
    if name in _INTS:
        return int(text)
    if name in _FLOATS:
        return float(text)
    if name in _BOOLS:
        return text == "1"
    if name == "protected_layers":
        return tuple(int(x) for x in text.split("|") if x)
    return text


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        return "|".join(map(str, value))
    return str(value)
