"""What the kvpareto engine could not do yet when a row was measured, told by the row's date.

Rows are never edited (a measurement stands), so a fit to them has to know which kernels they ran
on. Most changes are fields of LatencyJob: the roofline describes an engine without them. Three took
so much longer that seconds from before them say nothing of the engine that ships; such a row is
used for what it still says.
"""

from typing import Any

from ....planner.engines.kvpareto import KVPARETO
from ....planner.formats.configuration import Configuration
from ....planner.memory.activation.workspace import FEW_ROWS
from ....planner.models.spec import ModelSpec, MoEFFN

_HAS_SINCE = {
    "eight_bit_attention": "2026-11-28T14",
    "overlapping_launches": "2026-11-28T16:54",
    "whole_number_products": "2026-11-28T20",
    "last_row_alone": "2026-11-28T23:05",
    "ready_rows": "2026-11-28T23:52",
    "conflict_free_merges": "2026-11-29T07:05",
}
"""Fields of LatencyJob, and when the engine got what they stand for."""
_COPIED_HEADS_UNTIL = "2026-11-29T10:10"
_STAGED_BATCHES = "2026-11-28T09"
_GROUPED_EXPERTS = "2026-11-28T16"
_PACKED_ROWS_READ = _HAS_SINCE["overlapping_launches"]


def engine_parts(when: str) -> dict[str, float]:
    """The fields of LatencyJob that describe the engine of a time (ISO 8601, UTC)."""
    parts = {name: float(when >= since) for name, since in _HAS_SINCE.items()}
    return parts | {"copied_heads": float(when < _COPIED_HEADS_UNTIL)}


def prompts_by_tiles(line: dict[str, Any]) -> bool:
    """Whether the prompts of a run's batch went tile by tile, which is slower than in stages."""
    return (
        line["batch"] > 1 and line["engine"] == KVPARETO.name and line["started"] < _STAGED_BATCHES
    )


def packed_rows_read(line: dict[str, Any], config: Configuration) -> bool:
    """Whether packed weights multiplied a prompt's chunks as they were, in kernels of few rows
    that are gone: at 64 rows of 8 bits these took 2.5 times as long."""
    rows = (config.chunk or line["context"]) * line.get("batch", 1)
    packed = config.weight_bits < 16 and line["engine"] == KVPARETO.name
    when: str = line["started"] if "started" in line else line["time"]
    return packed and rows <= FEW_ROWS and when < _PACKED_ROWS_READ


def experts_in_turn(line: dict[str, Any], spec: ModelSpec, config: Configuration) -> bool:
    """Whether packed experts took a prompt's tokens one after another, which its seconds and
    peaks are of."""
    experts = config.weight_bits < 16 and any(isinstance(x.ffn, MoEFFN) for x in spec.layers)
    return experts and line["engine"] == KVPARETO.name and line["started"] < _GROUPED_EXPERTS
