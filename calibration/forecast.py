"""What a calibration will run and how long that takes, by the unquantized model's own speed.

Said before anything is measured. Where minutes were given and no number of items, the items are
as many as let ENOUGH configurations be run in that time: a rougher score of six configurations
says more about the frontier than a fine one of two.
"""

import time
from dataclasses import dataclass

from ..planner.configuration import Configuration
from .candidates import chunk_for
from .options import ITEMS, Asked
from .trial import Bench

ENOUGH = 6
"""The anchors and two chosen runs."""
FEWEST = 8


@dataclass(frozen=True)
class Forecast:
    """Seconds of one configuration at all contexts: whatever the items, and for each item."""

    fixed: float
    per_item: float
    rows: int
    """Rows that a configuration leaves."""

    def seconds(self, items: int) -> float:
        """Of a configuration that is not given up early."""
        return self.fixed + items * self.per_item

    def items_for(self, minutes: float) -> int:
        """ITEMS, or as many of its halves as it takes for ENOUGH configurations in the time."""
        items = ITEMS
        while items > FEWEST and ENOUGH * self.seconds(items) > 60 * minutes:
            items //= 2
        return items


def forecast(bench: Bench, contexts: tuple[int, ...]) -> Forecast:
    """Time the unquantized model at each context."""
    fixed, per_item, rows = 0.0, 0.0, 0
    for context in contexts:
        fits = bench.fitting_tasks(context)
        rows += 1 + len(fits)
        begun = time.monotonic()
        with bench.open(Configuration(chunk=chunk_for(context)), context) as trial:
            speed = trial.speed()
        # opening and timing it once, and two models reading the windows of the text
        fixed += time.monotonic() - begun + 2 * bench.material.windows * speed.ttft_s
        for name in fits:
            answer = bench.answer_tokens(name, context)
            per_item += speed.ttft_s + answer * speed.tpot_s / bench.at_once
    return Forecast(fixed, per_item, rows)


def in_words(found: Forecast, bench: Bench, asked: Asked, done: int, minutes: float | None) -> str:
    """One line; `done` configurations are measured already."""
    one = found.seconds(asked.items)
    total = one * max(asked.runs - done, 1)
    if minutes is not None:
        total = min(total, 60 * minutes)
    where = ", ".join(f"{context:,}" for context in asked.contexts)
    kinds = ", ".join(["divergence", *bench.fitting_tasks(max(asked.contexts))])
    return (
        f"{bench.spec.name} on {bench.device}: at most {asked.runs} configurations at {where} "
        f"tokens; {kinds}; {asked.items} items a task; at most about {_duration(total)}, "
        f"{_duration(one)} a configuration"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
