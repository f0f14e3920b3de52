"""Predicted time to the first token (TTFT) and for each further one (TPOT), by a roofline.

The roofline's coefficients live in profiles/hardware/latency.json with what they were fitted on;
docs/latency.md has the derivation, docs/latency_fit.md the errors.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..engine import Engine
from ..formats.configuration import Configuration
from ..hardware.gpus import Hardware
from ..light_dataclass import dataclass
from ..memory.kv_cache import kv_bytes
from ..models.spec import ModelSpec
from ..workload import Workload
from .interval import profile_of
from .job import ConfigurationAxes
from .roofline import Seconds, sweep


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds, with an interval and what they are worth.

    `kind` says how: "fitted on ..." on the GPU that was measured, "roofline ..." elsewhere.
    No rate at the low end exceeds the datasheet's.
    """

    ttft_s: float
    tpot_s: float
    kind: str
    ttft_low: float
    ttft_high: float
    tpot_low: float
    tpot_high: float


def predict(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
) -> Latency | None:
    """Latency of one configuration; None without a GPU: seconds are not guessed.

    Of a model that is not understood, the interval holds those of all its readings.
    """
    if hardware is None:
        return None
    readings = spec, *spec.ends
    return widened([_of_reading(one, config, workload, engine, hardware) for one in readings])


def expected(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    hardware: Hardware,
) -> tuple[float, float]:
    """TTFT and TPOT of one configuration without an interval, which takes three times as long."""
    axes = ConfigurationAxes.of(config, kv_bytes(spec, config, workload, engine).total)
    rates = profile_of(engine, hardware, spec).coefficients
    seconds = sweep(engine.loaded(spec), workload, hardware, rates, axes)
    return float(seconds.ttft[0, 0, 0]), float(seconds.tpot[0, 0, 0])


def widened(each: Sequence[Latency]) -> Latency:
    """The first, with an interval that holds all."""
    return replace(
        each[0],
        ttft_low=min(one.ttft_low for one in each),
        ttft_high=max(one.ttft_high for one in each),
        tpot_low=min(one.tpot_low for one in each),
        tpot_high=max(one.tpot_high for one in each),
    )


def _of_reading(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    hardware: Hardware,
) -> Latency:
    size = kv_bytes(spec, config, workload, engine).total
    axes = ConfigurationAxes.of(config, size)
    profile = profile_of(engine, hardware, spec)
    loaded = engine.loaded(spec)
    swept = [
        sweep(loaded, workload, hardware, end.prompts, axes, end.steps) for end in profile.ends
    ]
    return with_interval(profile.kind, swept, 0, 0, 0)


def with_interval(kind: str, swept: Sequence[Seconds], w: int, f: int, c: int) -> Latency:
    """One point of three sweeps: as predicted, at the low end, at the high end."""
    ttft, ttft_low, ttft_high = (float(seconds.ttft[w, f, c]) for seconds in swept)
    tpot, tpot_low, tpot_high = (float(seconds.tpot[w, f, 0]) for seconds in swept)
    return Latency(ttft, tpot, kind, ttft_low, ttft_high, tpot_low, tpot_high)
