"""Whether a calibration learns affine maps by itself, and what they were worth.

Caches of 2.2 to 2.4 bits are the smallest there are, and live by maps of the model's own
(measure/affine_maps.py). A longer calibration that saw two bits of keys or of values lose something
learns them from its text and runs one such format, where the minutes leave room for both. It is
judged against what the fit expects of the same bytes without maps. Its rows are kept as measured;
the regression does not learn from them, whose formats no published row has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...planner.accuracy.predict import average, predict
from ...planner.accuracy.predictor import Predictor
from ...planner.formats.configuration import Configuration
from ...planner.models.spec import LatentAttention, ModelSpec
from ..fit.profile import mean, to_row
from ..records.record_file import DIVERGENCE, Record
from .candidates import LONG

AFFINE = Configuration.parse("w16a16-k2v2-kc128+affine+clip70+sink4")
TWIN = Configuration.parse("w16a16-k2v2-kc128")
"""The same bytes without maps."""
PROBES = ("w16a16-k2v16", "w16a16-k16v2")
LOSES = 0.97
"""Retention of a probe above which two bits cost nothing that maps could give back."""


def proposes(spec: ModelSpec, runs: int, records: Sequence[Record], context: int) -> bool:
    """Whether `AFFINE` is worth a run of a calibration of `runs`: the rows at `context` say so, and
    no row of it is there."""
    if runs < LONG or any(isinstance(m, LatentAttention) for m, _ in spec.mixer_counts):
        return False
    if any(Configuration.parse(record.config).affine for record in records):
        return False
    kept = [found for text in PROBES if (found := _kept(records, text, context)) is not None]
    return bool(kept) and min(kept) < LOSES


def gain(
    spec: ModelSpec, records: Sequence[Record], payload: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What `AFFINE` kept at the longest context where it was run, and what is predicted of `TWIN`
    by the fitted `payload`; None where it was not run."""
    ran = [r.context for r in records if Configuration.parse(r.config).with_chunk(None) == AFFINE]
    kept = _kept(records, str(AFFINE), max(ran)) if ran else None
    if kept is None:
        return None
    twin = average(predict(spec, TWIN, max(ran), Predictor(dict(payload)))).retention
    without = {"retention": round(kept, 4), "without": round(twin, 4)}
    return {"config": str(AFFINE), "context": max(ran), **without}


def sentence(found: Mapping[str, Any]) -> str:
    """`gain` for a person, without its stop."""
    return (
        f"With affine maps {found['config']} keeps {found['retention']:.1%} of the score at "
        f"{found['context']:,} tokens; without them {found['without']:.1%} is predicted of the "
        "same bytes"
    )


def _kept(records: Sequence[Record], text: str, context: int) -> float | None:
    """Mean retention over the tasks that a configuration was scored on at a context; over the text
    where no task was; None where it was not run."""
    config = Configuration.parse(text)
    rows = [
        (record.task, row.retention, row.sd)
        for record in records
        if record.context == context
        and Configuration.parse(record.config).with_chunk(None) == config
        and (row := to_row(record, "")) is not None
    ]
    scored = [row for row in rows if row[0] != DIVERGENCE] or rows
    return mean([(kept, sd) for _, kept, sd in scored])[0] if scored else None
