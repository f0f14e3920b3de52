"""How long the fit at the end of a calibration takes here, by one that is timed beforehand.

`--minutes` is a promise, and the fit is a part of it: some ten seconds, by the processor, of which
the forecast of the model's speed says nothing. What is timed is the regression over four of five
published rows, from where that of all ends: some forty steps, two to four seconds. (Over all
rows one machine is at the end at once, another after as many steps.) The fit at the end has the
model's own rows beside all, and is made once more for each part of these that is left out: 120 to
310 steps.
"""

import time

from threadpoolctl import threadpool_limits

from ...planner.accuracy.predict import published
from ..fit.accuracy_rows import read_rows
from ..fit.mixed_effects import KnownModel
from ..fit.profile import first_guesses
from ..fit.published import FOLDER, read_models
from ..fit.regression import fit_rows

OF_ONE = 8.0
"""Of the timed fit, what the fit at the end takes at most: 2 to 7 for 6 to 16 configurations of
three models, on two processors (docs/LOG.md)."""
OUT = 5
"""One row in so many is left out of the timed fit."""
BESIDE = 1.5
"""Seconds of the command beside: the interpreter's start and end, files, the result."""


def seconds_at_the_end() -> float:
    """Of the time of a calibration, what must be left after its last run."""
    rows = [row for i, row in enumerate(read_rows(FOLDER / "accuracy.csv")) if i % OUT]
    models = {line["key"]: KnownModel.read(line) for line in read_models(FOLDER / "models.csv")}
    start = first_guesses(published())
    begun = time.perf_counter()
    with threadpool_limits(1):  # as the fit at the end has it
        fit_rows(rows, models, start)
    return OF_ONE * (time.perf_counter() - begun) + BESIDE
