"""What a fit of times was worth on rows it had not seen, by class of models, and the interval that
follows.

Ends are conformal: quantiles of log(measured / predicted) while each model was left out, for
prompts and steps apart. A class with rows of two models or fewer is never said more narrowly than
all rows are; one without rows is as wide as classes were while none of their rows was in the fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...planner.latency.model_class import CLASSES, UNTRIED

Floats = npt.NDArray[np.float64]
Ends = tuple[float, float]
"""Factors of time."""

COVERED = 0.95
"""Share of a time's rows between the ends: held by the rows of models that the ends were not made
of, nine of ten are within (`held`)."""
NARROWEST = 0.05
"""Log of the factor that an end is from 1 at least: rows that happen to agree are not sure."""
FEW_MODELS = 2
"""Models up to which a class has no narrower interval than all rows have."""
TIMES = ("ttft", "tpot")


def conformal(errors: Floats, models: int) -> Ends:
    """Factors between which COVERED of the rows of so many models lie, never narrower than
    NARROWEST. Extremes of few rows, and of few models, are not yet extreme."""
    ordered = np.sort(errors[np.isfinite(errors)])
    if not len(ordered):
        return 1 - NARROWEST, 1 + NARROWEST
    outside = int((1 - COVERED) / 2 * (len(ordered) + 1))
    low = min(-NARROWEST, ordered[max(outside - 1, 0)])
    high = max(NARROWEST, ordered[min(len(ordered) - outside, len(ordered) - 1)])
    few = 1 + 4 / len(ordered) + 0.5 / models
    return float(np.exp(few * low)), float(np.exp(few * high))


@dataclass(frozen=True, eq=False)
class LeftOutErrors:
    """log(measured / predicted), [rows, 2]: TTFT, TPOT; NaN where a time was not measured."""

    errors: Floats
    models: tuple[str, ...]
    """What was left out with each row."""
    classes: tuple[str, ...]
    without_class: Floats | None = None
    """The same while all rows of the row's class were left out, where that was tried."""

    def median(self, which: int, of_class: str | None = None) -> float:
        """Median relative error of the prediction."""
        return float(np.nanmedian(np.abs(np.expm1(-self._column(which, of_class)))))

    def ends(self, which: int, of_class: str | None = None) -> Ends:
        """Of all rows, or of a class that has some."""
        every = conformal(self._column(which, None), len(set(self.models)))
        if of_class is None:
            return every
        models = len(self.models_of(of_class))
        found = conformal(self._column(which, of_class), models)
        if models > FEW_MODELS:
            return found
        return min(found[0], every[0]), max(found[1], every[1])

    def untried(self, which: int) -> Ends:
        """Of a class without rows: never narrower than that of one which has them."""
        known = [self.ends(which, of_class) for of_class in self.tried]
        if self.without_class is not None:
            known.append(conformal(self.without_class[:, which], len(self.tried)))
        return min(low for low, _ in known), max(high for _, high in known)

    @property
    def tried(self) -> tuple[str, ...]:
        """Classes that have rows."""
        return tuple(dict.fromkeys(self.classes))

    def models_of(self, of_class: str) -> set[str]:
        return {m for m, c in zip(self.models, self.classes, strict=True) if c == of_class}

    def held(self, which: int) -> Floats:
        """[rows]: 1 where the interval that the other models' rows would give holds a time, 0 where
        not, NaN where it was not measured."""
        found = np.full(len(self.models), np.nan)
        models, classes = np.array(self.models), np.array(self.classes)
        for model in dict.fromkeys(self.models):
            mine = models == model
            rest = self._some(~mine)
            for of_class in dict.fromkeys(classes[mine].tolist()):
                known = of_class in rest.tried
                low, high = np.log(rest.ends(which, of_class) if known else rest.untried(which))
                there = mine & (classes == of_class) & np.isfinite(self.errors[:, which])
                column = self.errors[there, which]
                found[there] = (column >= low) & (column <= high)
        return found

    def trust(self) -> dict[str, Any]:
        """What planner/latency/interval.py reads: factors of all, of each class, of no class."""
        classes = {of_class: self._trust(of_class) for of_class in self.tried}
        every = _factors([self.ends(which) for which in (0, 1)])
        untried = _factors([self.untried(which) for which in (0, 1)])
        return every | {"classes": classes, UNTRIED: untried}

    def _trust(self, of_class: str) -> dict[str, Any]:
        rows = self.classes.count(of_class)
        medians = {
            f"{name}_median": round(self.median(which, of_class), 4)
            for which, name in enumerate(TIMES)
        }
        counts = {"rows": rows, "models": len(self.models_of(of_class))}
        return counts | medians | _factors([self.ends(which, of_class) for which in (0, 1)])

    def _column(self, which: int, of_class: str | None) -> Floats:
        column = self.errors[:, which]
        if of_class is None:
            return column
        return column[np.array(self.classes) == of_class]

    def _some(self, chosen: npt.NDArray[np.bool_]) -> "LeftOutErrors":
        places = np.flatnonzero(chosen).tolist()
        out = None if self.without_class is None else self.without_class[chosen]
        return replace(
            self,
            errors=self.errors[chosen],
            models=tuple(self.models[i] for i in places),
            classes=tuple(self.classes[i] for i in places),
            without_class=out,
        )


def class_table(left_out: LeftOutErrors) -> str:
    """Markdown: each class' errors while models were left out, its interval, and the share of times
    that the interval of the other models' rows holds."""
    lines = [
        "| class | rows | models | TTFT | interval | held | TPOT | interval | held |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    held = [left_out.held(which) for which in (0, 1)]
    classes = np.array(left_out.classes)
    for of_class in [*left_out.tried, None]:
        mine = np.full(len(classes), True) if of_class is None else classes == of_class
        models = set(left_out.models) if of_class is None else left_out.models_of(of_class)
        cells = ["**all**" if of_class is None else CLASSES[of_class], mine.sum(), len(models)]
        for which in (0, 1):
            ends = left_out.ends(which, of_class)
            cells += [f"{left_out.median(which, of_class):.1%}"]
            cells += ["" if of_class is None else f"{ends[0]:.2f} to {ends[1]:.2f}"]
            cells += [f"{np.nanmean(held[which][mine]):.0%}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if left_out.without_class is not None:
        untried = [left_out.untried(which) for which in (0, 1)]
        off = np.abs(np.expm1(-left_out.without_class))
        cells = ["none of these (a class left out whole)", "", ""]
        for which in (0, 1):
            ends = untried[which]
            cells += [f"{np.nanmedian(off[:, which]):.1%}", f"{ends[0]:.2f} to {ends[1]:.2f}", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _factors(ends: Sequence[Ends]) -> dict[str, Any]:
    """Of prompts, and of steps."""
    prompts, steps = (
        {"low": _end(low) | {"plan": 0.0}, "high": _end(high) | {"plan": 1.0}} for low, high in ends
    )
    return prompts | {"steps": steps}


def _end(factor: float) -> dict[str, float]:
    return {"card": round(factor, 4), "host": round(factor, 4)}
