"""What `calibrate` says before it measures: what will run, how long it takes, what layers carry."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..report.progress import Say
from .design.options import CalibrationOptions, CalibrationSettings

if TYPE_CHECKING:
    from ..planner.models.spec import ModelSpec
    from .design.time_estimate import TimeEstimate
    from .measure.bench import Bench
    from .measure.layer_sensitivity import Sensitivity
    from .records.record_file import Environment, Record, RecordFile


def announce(
    options: CalibrationOptions,
    bench: "Bench",
    asked: CalibrationSettings,
    records: Sequence["Record"],
    say: Say,
    begun: float,
    end: float,
) -> tuple[CalibrationSettings, "TimeEstimate"]:
    """Say what will run and how long it will take. The terms, with as many items and contexts as
    fit the minutes since `begun`, less the `end` seconds of a fit, where these were left open, and
    the time estimate."""
    from .design.time_estimate import PROBE_SHARE, forecast, in_words
    from .records.record_file import LAYERS

    for context in asked.contexts:
        fits = bench.fitting_tasks(context)
        for name in bench.prompts.material.tasks:
            if name not in fits:
                if options.tasks is not None:
                    bench.prompts.items(name, context)  # raises, and says how many tokens it needs
                say(f"task {name} is left out: it needs more than {context:,} tokens")
    estimate = forecast(bench, asked.contexts)
    if options.minutes is not None and estimate.few(asked, options.minutes):
        estimate = estimate.shorter(forecast(bench, asked.contexts))
    seconds = None if options.minutes is None else 60 * options.minutes
    bench.probe_tokens = estimate.probe_tokens(len(bench.spec.layers), seconds)
    if options.minutes is not None and not records:
        asked = estimate.fit(
            asked,
            (1 - PROBE_SHARE) * options.minutes - (time.monotonic() - begun + end) / 60,
            items=options.items is None,
            contexts=options.context is None,
        )
        bench.prompts.material = replace(
            bench.prompts.material, items=asked.items, contexts=asked.contexts
        )
    done = len({record.config for record in records if record.task != LAYERS})
    say(in_words(estimate, bench, asked, done, options.minutes))
    if options.minutes is not None and estimate.few(asked, options.minutes):
        say("few configurations fit in this time: give a shorter --context or fewer --tasks")
    return asked, estimate


def announce_layers(sensitivity: "Sensitivity | None", say: Say) -> None:
    """What the probe of the layers says."""
    if sensitivity is None:
        say("the layers could not be probed: the default sets of protected layers are candidates")
        return
    proposed = sensitivity.proposals()
    if not proposed:
        say("layers probed: no small set of them has most of the error of 4-bit keys and values")
    for layers in proposed:
        named = ", ".join(map(str, layers))
        say(
            f"layers probed: {len(layers)} of {len(sensitivity.keys)} ({named}) have "
            f"{sensitivity.carried(layers):.0%} of the error of 4-bit keys and values; protecting "
            "them is a candidate"
        )


def announce_rows(file: "RecordFile", here: "Environment", say: Say) -> None:
    """What of the rows on the disk is not as it was written, or not of these versions."""
    from .records.record_file import DIVERGENCE, of_other_versions

    if file.torn:
        say(f"the last row was incomplete; it is kept in {file.path.name}.torn")
    old = of_other_versions(file.records, here)
    if old:
        say(f"{len(old)} rows were measured by other versions; they are kept and marked")
    otherwise = [row for row in file.records if row.task == DIVERGENCE and _otherwise(row)]
    if otherwise:
        say(
            f"{len(otherwise)} rows compare more of the text than its end, which is what runs "
            "compare now, and count windows of recent tokens too low: to measure all alike, move "
            f"{file.path.parent} away"
        )


def _otherwise(row: "Record") -> bool:
    """Whether a divergence is of other positions of its text than are compared now."""
    from .measure.divergence import compares_otherwise
    from .records.record_file import POSITIONS, TAIL, WINDOW

    if POSITIONS not in row.details:  # a failure
        return False
    window = row.details.get(WINDOW, float(row.context))
    return compares_otherwise(row.details[POSITIONS], window, row.details.get(TAIL))


def announce_dequantized(stored: "ModelSpec", spec: "ModelSpec", say: Say) -> None:
    """That what is measured, `spec`, are the 16-bit weights of a checkpoint `stored` otherwise."""
    if stored.quantization is not None and spec.quantization is None:
        say(
            f"{stored.name} is stored as {stored.quantization.method}: what is measured are its "
            "weights dequantized to 16 bits, and w8 and w4 rounded from these"
        )
