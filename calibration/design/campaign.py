"""A calibration from beginning to end: anchors, chosen runs, the fit, the profile.

Nothing here knows the runtime: it asks a Runner for runs and reads the rows. So a calibration
that died goes on where it was: rows that are there are not measured again, and the choice of
the next run depends on the rows alone.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...planner.accuracy.calibrations import ACCURACY, META, fingerprint, weights_of
from ...planner.formats.configuration import Configuration
from ...planner.models.finite_json import read_json
from ...planner.models.spec import ModelSpec
from ..fit.profile import MANY, fit_profile, mean
from ..measure.layer_sensitivity import Sensitivity
from ..measure.runner import ConfigurationRunner
from ..records.profile_files import replace_file, to_text
from ..records.record_file import DIVERGENCE, LAYERS, Environment, Record, of_other_versions
from .affine_proposal import AFFINE, gain, proposes
from .candidates import LONG, anchors, chunk_for, enumerate_candidates
from .next_run import Measurement, Posterior, choose
from .telling_candidates import CandidateDesign

FIRST = 1
"""Configurations that leave nothing to fit: the unquantized model."""
AGAIN = 2.0
"""Times that the 16-bit weights were read in, for reading and rounding them to other bits."""
CHOICES = 3
"""Times that the next run was chosen in, which are left of the minutes: for the next one, for the
errors that are expected at the end, and for the fits of the model's own noise."""
RECENT = 4
"""Runs that say how long the next takes at most: later ones leave out what the model cannot do."""
NOT_KNOWN = 10.0
"""Error of a retention that a failed run leaves as unknown as it was."""


@dataclass(frozen=True)
class CalibrationPlan:
    """What a calibration may spend, and on what. `weights`: weight bits that can be run.

    `expected` are a configuration's seconds at each context, as forecast; `spent` the seconds that
    the calibration took before its first run, `end` those that the fit after the last one takes
    (fit_time.py), `reading` those that the 16-bit weights took to be read.
    """

    contexts: tuple[int, ...]
    weights: tuple[int, ...]
    runs: int
    minutes: float | None
    tolerance: float
    seed: int
    expected: Mapping[int, float] = field(default_factory=dict)
    spent: float = 0.0
    end: float = 0.0
    reading: float = 0.0


@dataclass(frozen=True)
class Ending:
    """Why a calibration ended, and the errors that are expected then (None: not known)."""

    reason: str
    configurations: int
    expected_error: float | None
    """Of the frontier."""
    expected_everywhere: float | None = None
    """Mean over all candidates that were not run."""
    one: float = 0.0
    """Seconds of a configuration, by those that were run, before them as forecast."""
    beside: float = 0.0
    """Seconds that runs of other weight bits and a fit take beside them."""


class Campaign:
    """Measures until the plan is spent or the frontier is settled.

    `step` is told, before each configuration, its number and name. `learn` makes affine maps, for a
    configuration that asks for them by itself (affine_proposal.py); None: it cannot here.
    """

    def __init__(
        self,
        spec: ModelSpec,
        plan: CalibrationPlan,
        runner: ConfigurationRunner,
        records: Sequence[Record],
        step: Callable[[int, Configuration], None],
        clock: Callable[[], float] = time.monotonic,
        learn: Callable[[], None] | None = None,
    ) -> None:
        self._learn = learn
        self._spec, self._plan, self._runner, self._records = spec, plan, runner, records
        self._step, self._clock = step, clock
        sensitivity = Sensitivity.of(records)
        self._configs, self._candidates = enumerate_candidates(
            spec, max(plan.contexts), plan.weights, sensitivity
        )
        self._index = {config: i for i, config in enumerate(self._configs)}
        self._times = RunTimes(plan, clock)
        self._telling: CandidateDesign | None = None
        if plan.runs >= LONG:
            memory = self._candidates.memory.tolist()
            self._telling = CandidateDesign(spec, self._configs, memory, sensitivity)

    def run(self) -> Ending:
        """Run configurations, at all contexts each; the order depends on the rows alone."""
        times = self._times
        done: list[Configuration] = []
        while len(done) < self._plan.runs:
            config = next((c for c in self._certain() if c not in done), None)
            read = {16, *(c.weight_bits for c in done)}
            other = config is not None and config.weight_bits not in read
            beside = AGAIN * self._plan.reading if other else 0.0
            if not times.allow(self._plan.contexts, fit=len(done) >= FIRST, beside=beside):
                return self._ending(self._spent(), len(done))
            config = config or self._affine(times)
            if config is None:
                begun = self._clock()
                config, error = self._choose(len(done))
                if config is None:
                    return self._ended("the frontier is settled", len(done), error)
                times.chose(self._clock() - begun)
            self._step(len(done), config)
            done.append(config)
            for context in self._plan.contexts:
                later = context != self._plan.contexts[0]
                if later and not times.allow((context,), fit=len(done) > FIRST):
                    return self._ending(self._spent(), len(done))
                before, known = self._clock(), len(self._records)
                self._runner.run(config.with_chunk(chunk_for(context)), context)
                if len(self._records) > known:  # else all of it was measured before
                    times.add(context, self._clock() - before)
        return self._ending(self._ran(len(done)), len(done))

    def _affine(self, times: "RunTimes") -> Configuration | None:
        """A format with affine maps, which are learnt for it, where that has something to win and
        ends in time: learning reads no more text than a configuration at the longest context."""
        plan, longest = self._plan, max(self._plan.contexts)
        if self._learn is None or not proposes(self._spec, plan.runs, self._records, longest):
            return None
        if not times.allow((*plan.contexts, longest), fit=True):
            return None
        self._learn()
        return AFFINE.with_chunk(chunk_for(longest))

    def _ran(self, number: int) -> str:
        return "1 configuration was run" if number == 1 else f"{number} configurations were run"

    def _spent(self) -> str:
        minutes = self._plan.minutes
        return f"no other run ends within {minutes:g} minute{'' if minutes == 1 else 's'}"

    def _certain(self) -> list[Configuration]:
        """The anchors, and whatever was begun: a run that was cut short is completed first."""
        chunk = chunk_for(max(self._plan.contexts))
        begun = [Configuration.parse(r.config).with_chunk(chunk) for r in _runs(self._records)]
        return list(dict.fromkeys([*anchors(self._plan.weights, chunk, self._plan.runs), *begun]))

    def _choose(self, number: int) -> tuple[Configuration | None, float]:
        rng = np.random.default_rng([self._plan.seed, number])
        tried = self._tried()
        choice = choose(Posterior(self._candidates, tried), rng)
        index = choice.index
        if self._telling is not None:
            last = number == self._plan.runs - 1
            index = self._telling.next(_runs(self._records), tried, last, otherwise=index)
        settled = choice.expected_error < self._plan.tolerance
        enough = self._telling is None or number >= LONG
        if index is None or (settled and enough):
            return None, choice.expected_error
        return self._configs[index], choice.expected_error

    def _ending(self, reason: str, number: int) -> Ending:
        rng = np.random.default_rng([self._plan.seed, number])
        error = choose(Posterior(self._candidates, self._tried()), rng).expected_error
        return self._ended(reason, number, error)

    def _ended(self, reason: str, number: int, error: float | None) -> Ending:
        everywhere = None
        if self._telling is not None and number >= MANY:
            everywhere = self._telling.expected(_runs(self._records), self._tried())
        one = sum(self._times.needed(context) for context in self._plan.contexts)
        beside = AGAIN * self._plan.reading + self._plan.end
        return Ending(reason, number, error, everywhere, one, beside)

    def _tried(self) -> dict[int, Measurement]:
        """What is known of each candidate that was run, at the longest context."""
        longest = max(self._plan.contexts)
        rows: dict[int, list[Record]] = {}
        for record in _runs(self._records):
            index = self._index.get(Configuration.parse(record.config))
            if index is not None and record.context == longest:
                rows.setdefault(index, []).append(record)
        return {index: _summary(of_one) for index, of_one in rows.items()}


class RunTimes:
    """What runs took, and whether another ends in time: by the longest of the recent ones at each
    context, before there are any by the forecast, corrected by what others took against theirs."""

    def __init__(self, plan: CalibrationPlan, clock: Callable[[], float]) -> None:
        self._plan, self._clock = plan, clock
        self._started = clock() - plan.spent
        self._took: dict[int, list[float]] = {}
        self._choices: list[float] = []

    def add(self, context: int, seconds: float) -> None:
        self._took.setdefault(context, []).append(seconds)

    def chose(self, seconds: float) -> None:
        """What it took to choose a run."""
        self._choices.append(seconds)

    def allow(self, contexts: Sequence[int], *, fit: bool, beside: float = 0.0) -> bool:
        """Whether a run at `contexts`, `beside` seconds before it, and a fit after it if there is
        one end before the minutes do."""
        if self._plan.minutes is None:
            return True
        spent = self._clock() - self._started
        needed = beside + sum(self.needed(context) for context in contexts)
        if fit:
            needed += self._plan.end + CHOICES * max(self._choices[-RECENT:], default=0.0)
        return spent + needed <= 60 * self._plan.minutes

    def needed(self, context: int) -> float:
        """Seconds of a run at this context."""
        if context in self._took:
            return max(self._took[context][-RECENT:])
        expected = self._plan.expected
        paces = [
            max(took[-RECENT:]) / expected[other]
            for other, took in self._took.items()
            if expected.get(other)
        ]
        return expected.get(context, 0.0) * max(paces, default=1.0)


def write_profile(
    folder: Path, spec: ModelSpec, records: Sequence[Record], here: Environment
) -> dict[str, Any]:
    """Fit the rows and write accuracy.json and meta.json; what meta.json says.

    Files are replaced whole, coefficients first: a plan never reads half a profile.
    """
    payload = fit_profile(spec, records)
    runs = _runs(records)
    outcomes = [record.outcome for record in runs]
    meta = {
        "schema": 1,
        "model": spec.name,
        "fingerprint": fingerprint(spec),
        "weights": (read_json(folder / META) or {}).get("weights") or weights_of(spec),
        "rows": len(records),
        "configurations": len({record.config for record in runs}),
        "failed": len(outcomes) - outcomes.count("ok"),
        "other_versions": len(of_other_versions(records, here)),
        "contexts": sorted({record.context for record in runs}),
        "tasks": sorted({record.task for record in runs}),
        "held_out": payload["held_out"] if payload is not None else {},
        "fitted": payload is not None,
        "breaks": payload["breaks"] if payload is not None else None,
        "broken": payload["broken"] if payload is not None else [],
        "protect": payload.get("probed", {}).get("protect", []) if payload is not None else [],
        "affine": gain(spec, runs, payload) if payload is not None else None,
        "environment": here.model_dump(),
        "ended": max((record.ended for record in records), default=None),
    }
    if payload is not None:
        replace_file(folder / ACCURACY, to_text(payload))
    replace_file(folder / META, json.dumps(meta, indent=1, allow_nan=False) + "\n")
    return meta


def _runs(records: Sequence[Record]) -> list[Record]:
    """The rows that are runs of configurations."""
    return [record for record in records if record.task != LAYERS]


def _summary(rows: Sequence[Record]) -> Measurement:
    """Retention over the tasks; over the text where no task was run; unknown where it failed."""
    scored = [r for r in rows if r.retention is not None and r.outcome == "ok"]
    on_tasks = [r for r in scored if r.task != DIVERGENCE]
    values = [(float(r.retention or 0.0), r.retention_sd or 0.0) for r in on_tasks or scored]
    if not values:
        return Measurement(0.5, NOT_KNOWN)
    return Measurement(*mean(values))
