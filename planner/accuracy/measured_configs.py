"""Configurations that were run: their measured retention replaces the prediction.

A calibration's coefficients carry the measured retentions they were fitted to. A configuration
counts as run when the very same one was, or one that differs only in a prefill chunk on which
its cache does not depend (per-token scales without a window: docs/runtime.md), at a context as
long as the one planned for or at most twice as long; or, where it kept less than half of the score
at a shorter one, beyond that. A task kind that was measured replaces that kind's prediction; the
whole is `measured` when every kind of the overall retention was.

More bits of weights, keys or values never keep less, where all else is alike: of 2,268 such pairs
of shipped runs none is out of order by more than its sampling. So what was not run is promised no
less than what was with no more bits, and no more than what was with no fewer.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..formats.configuration import Configuration, Granularity
from ..light_dataclass import dataclass
from .prediction import Accuracy, TaskAccuracy

LONGEST_STAND_IN = 2.0
"""How much longer than planned for the measured context may be: it loses no less than it."""


AT_ODDS = 3.0
"""Standard deviations of a measurement to the interval of a prediction that it contradicts: of a
hundred runs of which all are predicted right, one in four has such a one by chance."""


@dataclass(frozen=True, slots=True)
class MeasuredRetention:
    """Measured retention on one kind of task, and its standard error."""

    retention: float
    sd: float

    def decides(self, predicted: TaskAccuracy, level: float) -> bool:
        """Whether it replaces a prediction of the same: it is as narrow, or is at odds with it. A
        fit has seen the run too, so a wide measurement that agrees with it says no more."""
        low, _ = self.interval(level)
        if self.retention - low <= predicted.retention - predicted.low:
            return True
        away = max(predicted.low - self.retention, self.retention - predicted.high, 0.0)
        return away > AT_ODDS * self.sd

    def interval(self, level: float) -> tuple[float, float]:
        """Ends that hold the true retention with probability `level`, within 0..1."""
        from statistics import NormalDist  # only for what was measured

        half = NormalDist().inv_cdf(0.5 + level / 2) * self.sd
        return max(0.0, self.retention - half), min(1.0, self.retention + half)


class MeasuredConfigurations:
    """`entries`: [{"config", "context", "kinds": {kind: [retention, sd]}}, …], and `broken`:
    [{"config", "context"}, …], what keeps less than half of the score from this context on."""

    def __init__(
        self, entries: list[Mapping[str, Any]], broken: list[Mapping[str, Any]] | None = None
    ) -> None:
        self._broken = {
            numerically(Configuration.parse(entry["config"])): int(entry["context"])
            for entry in broken or []
        }
        self._runs: dict[str, dict[int, dict[str, MeasuredRetention]]] = {}
        for entry in entries:
            config = str(numerically(Configuration.parse(entry["config"])))
            kinds = self._runs.setdefault(config, {}).setdefault(int(entry["context"]), {})
            for kind, (retention, sd) in entry["kinds"].items():
                kinds[kind] = MeasuredRetention(min(float(retention), 1.0), float(sd))
        self._parsed = [Configuration.parse(run) for run in self._runs]

    def of(self, config: Configuration, context: int) -> Mapping[str, MeasuredRetention]:
        """Task kinds measured under `config` at a context that stands for this one."""
        if not self._runs:
            return {}
        contexts = self._runs.get(str(numerically(config)), {})
        near = [c for c in contexts if context <= c <= LONGEST_STAND_IN * context]
        if near:
            return contexts[min(near)]
        broken = self._broken.get(numerically(config), context + 1)
        beyond = [c for c in contexts if broken <= c <= context]
        return contexts[max(beyond)] if beyond else {}

    def ordered(self, config: Configuration, context: int) -> Iterator[tuple[Configuration, bool]]:
        """Configurations that were run, at a context that stands for this one, and are alike but
        for bits: no more of them anywhere (True), or no fewer."""
        asked = numerically(config)
        for run in self._parsed:
            if run != asked and self.of(run, context):
                if _no_better(run, asked):
                    yield run, True
                elif _no_better(asked, run):
                    yield run, False

    def broken(self, config: Configuration, context: int) -> tuple[Configuration, int] | None:
        """A configuration that kept less than half at a context no longer than this one, and that
        context: this configuration, or one that has no fewer bits and is otherwise alike."""
        asked = numerically(config)
        known = [
            (run, first)
            for run, first in self._broken.items()
            if first <= context and _no_better(asked, run)
        ]
        return min(known, key=lambda pair: (pair[0] != asked, pair[1]), default=None)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of task that any run was scored on."""
        runs = (run for contexts in self._runs.values() for run in contexts.values())
        return frozenset(kind for run in runs for kind in run)

    @property
    def longest(self) -> int | None:
        """The longest context that was measured; None where none was."""
        return max((c for contexts in self._runs.values() for c in contexts), default=None)

    def configurations(self) -> Iterator[Configuration]:
        """All that were run, those that differ in nothing but a chunk without effect once."""
        return iter(self._parsed)


def decided_by(
    measured: Mapping[str, MeasuredRetention], tasks: Mapping[str, TaskAccuracy], level: float
) -> dict[str, TaskAccuracy]:
    """Kinds of task whose measurement decides, as it says."""
    return {
        kind: TaskAccuracy(kept.retention, *kept.interval(level))
        for kind, kept in measured.items()
        if kind in tasks and kept.decides(tasks[kind], level)
    }


_BITS = ("weight_bits", "k_bits", "v_bits")


def _no_better(config: Configuration, other: Configuration) -> bool:
    """Whether a configuration has no more bits anywhere than another that is otherwise alike."""
    return all(
        getattr(config, field.name) <= getattr(other, field.name)
        if field.name in _BITS
        else getattr(config, field.name) == getattr(other, field.name)
        for field in fields(Configuration)
    )


def numerically(config: Configuration) -> Configuration:
    """The configuration without a chunk on which its cache does not depend."""
    free = config.granularity is Granularity.PER_TOKEN and not config.residual
    return config.with_chunk(None) if free or not config.quantizes_kv else config


def headed(
    headline: Sequence[str],
    tasks: Mapping[str, TaskAccuracy],
    *,
    level: float,
    provenance: str,
    notes: tuple[str, ...],
) -> Accuracy:
    """Each end of the weakest kind's retention: what every kind of `headline` keeps at least."""
    return Accuracy(
        retention=min(tasks[kind].retention for kind in headline),
        low=min(tasks[kind].low for kind in headline),
        high=min(tasks[kind].high for kind in headline),
        level=level,
        provenance=provenance,
        tasks=tasks,
        task=min(headline, key=lambda kind: (tasks[kind].retention, tasks[kind].low)),
        notes=notes,
    )


def with_measured(
    predicted: Accuracy, measured: Mapping[str, MeasuredRetention], headline: Sequence[str]
) -> Accuracy:
    """The prediction with the kinds put in that were measured under this configuration, and whose
    measurement decides."""
    decided = decided_by(measured, predicted.tasks, predicted.level)
    if not decided:
        return predicted
    whole = all(kind in decided for kind in headline)
    return headed(
        headline,
        {**predicted.tasks, **decided},
        level=predicted.level,
        provenance="measured" if whole else predicted.provenance,
        notes=() if whole else predicted.notes,
    )


def in_order(
    predicted: Accuracy,
    beside: Sequence[tuple[Accuracy, bool]],
    kinds: Collection[str],
    headline: Sequence[str],
) -> Accuracy:
    """The prediction within those `beside` it, of runs with no more bits (True) and no fewer: in
    the `kinds` of task that were scored."""
    tasks = dict(predicted.tasks)
    for known, less in beside:
        limit = max if less else min
        for kind in tasks.keys() & kinds:
            ends = zip(_ends(tasks[kind]), _ends(known.tasks[kind]), strict=True)
            tasks[kind] = TaskAccuracy(*(limit(pair) for pair in ends))
    if tasks == predicted.tasks:
        return predicted
    return headed(
        headline,
        tasks,
        level=predicted.level,
        provenance=predicted.provenance,
        notes=predicted.notes,
    )


def _ends(task: TaskAccuracy) -> tuple[float, float, float]:
    return task.retention, task.low, task.high
