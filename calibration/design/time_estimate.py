"""What a calibration will run and how long that takes, by the unquantized model's own speed.

Said before anything is measured. Where minutes were given, what was left open (items, contexts) is
chosen so that ENOUGH configurations can be run in that time: a rough score of six configurations
says more about the frontier than a fine one of two.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...planner.formats.configuration import Configuration
from ..measure.bench import Bench
from ..measure.layer_probe import LAYERS_AT_ONCE
from ..records.record_file import DIVERGENCE
from .candidates import chunk_for
from .options import ITEMS, CalibrationSettings

ENOUGH = 8
"""The anchors and four chosen runs."""
PROBE_SHARE = 0.1
"""Of the minutes, for the probe of the layers on a CPU."""
PROBE_TOKENS = (256, 128, 64, 32)
FEWEST = 8
"""Items below which a task says nothing."""


@dataclass(frozen=True)
class ConfigurationTime:
    """Seconds of one configuration at one context: whatever the items, and for each item. `rows`
    is how many it leaves."""

    fixed: float
    per_item: float
    rows: int


@dataclass(frozen=True)
class TimeEstimate:
    """`parts` by context; `per_token` is of a prompt, on a CPU."""

    parts: dict[int, ConfigurationTime]
    per_token: float = 0.0

    def seconds(self, items: int, contexts: Iterable[int]) -> float:
        """Of a configuration that is not given up early."""
        parts = [self.parts[context] for context in contexts]
        return sum(part.fixed + items * part.per_item for part in parts)

    def shorter(self, other: "TimeEstimate") -> "TimeEstimate":
        """The lesser of two of the same runs: what else the machine did made them longer."""
        parts = {
            context: replace(
                part,
                fixed=min(part.fixed, other.parts[context].fixed),
                per_item=min(part.per_item, other.parts[context].per_item),
            )
            for context, part in self.parts.items()
        }
        return TimeEstimate(parts, min(self.per_token, other.per_token))

    def few(self, asked: CalibrationSettings, minutes: float) -> bool:
        """Whether not even two configurations fit the minutes."""
        return self.seconds(asked.items, asked.contexts) > 60 * minutes / 2

    def share(self, task: str, context: int, asked: CalibrationSettings) -> float:
        """The part of a configuration's time that a row takes."""
        part = self.parts[context]
        if task == DIVERGENCE:
            seconds = part.fixed
        else:
            seconds = asked.items * part.per_item / max(part.rows - 1, 1)
        return seconds / self.seconds(asked.items, asked.contexts)

    def probe_tokens(self, layers: int, seconds: float | None) -> int:
        """Tokens of a window that `layers` layers are probed on within PROBE_SHARE of the time.
        See layer_probe.py: each token is read about twice for each layer."""
        if seconds is None:
            return PROBE_TOKENS[0]
        one = (2 + 1 / LAYERS_AT_ONCE) * layers * self.per_token
        fitting = [n for n in PROBE_TOKENS if n * one <= PROBE_SHARE * seconds]
        return max(fitting, default=PROBE_TOKENS[-1])

    def fit(
        self, asked: CalibrationSettings, minutes: float, *, items: bool, contexts: bool
    ) -> CalibrationSettings:
        """The terms with fewer items, then fewer contexts (the longest go first), as far as these
        are left open, until ENOUGH configurations fit the minutes or nothing is left to give."""
        counts = [ITEMS, ITEMS // 2, FEWEST] if items else [asked.items]
        lengths = range(len(asked.contexts), 0, -1) if contexts else [len(asked.contexts)]
        fitting = asked
        for length in lengths:
            for count in counts:
                fitting = replace(asked, items=count, contexts=asked.contexts[:length])
                if ENOUGH * self.seconds(fitting.items, fitting.contexts) <= 60 * minutes:
                    return fitting
        return fitting


def forecast(bench: Bench, contexts: tuple[int, ...]) -> TimeEstimate:
    """Time the unquantized model at each context."""
    parts, slowest = {}, 0.0
    for context in contexts:
        fits = bench.fitting_tasks(context)
        begun = time.monotonic()
        with bench.open(Configuration(chunk=chunk_for(context)), context) as trial:
            speed = trial.speed()
        # opening and timing it once, and two models reading the windows of the text
        slowest = max(slowest, speed.ttft_s / context)
        fixed = time.monotonic() - begun + 2 * bench.prompts.material.windows * speed.ttft_s
        answers = [bench.prompts.answer_tokens(name, context) for name in fits]
        per_item = len(fits) * speed.ttft_s + sum(answers) * speed.tpot_s / bench.at_once
        parts[context] = ConfigurationTime(fixed, per_item, 1 + len(fits))
    return TimeEstimate(parts, slowest)


def in_words(
    estimate: TimeEstimate,
    bench: Bench,
    asked: CalibrationSettings,
    done: int,
    minutes: float | None,
) -> str:
    """One line; `done` configurations are measured already."""
    one = estimate.seconds(asked.items, asked.contexts)
    total = one * max(asked.runs - done, 1)
    if minutes is not None:
        total = min(total, 60 * minutes)
    where = ", ".join(f"{context:,}" for context in asked.contexts)
    kinds = ", ".join(["divergence", *bench.fitting_tasks(max(asked.contexts))])
    return (
        f"{bench.spec.name} on {bench.device}: at most {asked.runs} configurations at {where} "
        f"tokens; {kinds}; {asked.items} items for each task; at most about {_duration(total)} "
        f"in total, {_duration(one)} for each configuration"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
