"""Notes beside a prediction: where it goes beyond the rows of the fit, what was seen to fail."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..formats.code_tables import CODED
from ..formats.configuration import Configuration
from ..models.spec import ModelSpec
from . import calibrations, shipped_measurements
from .formula import BLOCK, GRANULARITIES, TENSOR
from .predictor import Predictor
from .task_kinds import GENERATED_KINDS


def said_of_calibration(spec: ModelSpec) -> tuple[str, ...]:
    """What is to be said of the calibration that `predictor_for` takes."""
    if calibrations.find(spec) is not None:
        return calibrations.note(spec)
    return shipped_measurements.note(spec)


FEWEST = 3
"""Rows that say something of a method."""


def breaks_of(predictor: Predictor, config: Configuration, context: int) -> tuple[str, ...]:
    """Plain warnings of contexts at which the model, or the configuration, was seen to fail."""
    messages = []
    itself = predictor.payload.get("breaks")
    if itself is not None and context >= itself:
        messages.append(
            f"from {itself:,} tokens on this model, unquantized, scores less than half of its best "
            "(measured): expect no good answers there, whatever the configuration"
        )
    broken = predictor.measured.broken(config, context)
    if broken is not None:
        run, first = broken
        messages.append(
            f"{run} was measured to keep less than half of the score from {first:,} tokens on"
        )
    return tuple(messages)


def _coded(config: Configuration) -> bool:
    return any(name in CODED for name in (config.k_format, config.v_format))


def notes_of(
    predictor: Predictor, config: Configuration, context: int, headline: Sequence[str]
) -> tuple[str, ...]:
    """Where the configuration or the context lies beyond the rows of the fit."""
    known: Mapping[str, Any] = predictor.payload["range"]
    notes = []
    if len(headline) > 1 and (missing := set(GENERATED_KINDS) - set(headline)):
        named = " and ".join(sorted(missing)).replace("_", " ")
        notes.append(
            f"{named} was not measured on this model: --task {min(missing).replace('_', '-')} "
            "plans by its prediction"
        )
    longest = predictor.measured.longest
    if longest is not None and context > longest:
        notes.append(f"beyond the longest context this model was measured at ({longest:,} tokens)")
    elif context > known["context"][1]:
        notes.append(f"beyond the longest context of the rows ({known['context'][1]:,} tokens)")
    for name, used, words in (
        ("smoothing", config.smoothing, "K-smoothing: its gain is a prior"),
        ("per-block", config.granularity is GRANULARITIES[BLOCK], "scales per block of tokens"),
        ("per-tensor", config.granularity is GRANULARITIES[TENSOR], "integer scales per tensor"),
        ("sinks", config.sinks > 0, "sinks: no gain is assumed"),
        (
            "coded",
            _coded(config),
            "8-bit floats, blocks or tables: judged by their error of normal values",
        ),
        ("clip", config.clip < 100, "clipped ranges: judged by their error of normal values"),
        (
            "rows",
            config.activation_bits < 16,
            "activations in 8 bits: judged by their error of normal values",
        ),
        ("affine", config.affine, "affine maps: their gain is that of three small models"),
    ):
        rows = known["rows"].get(name, 0)
        if used and rows < FEWEST:
            notes.append(f"{'hardly a' if rows else 'no'} row has {words}")
    return tuple(notes)
