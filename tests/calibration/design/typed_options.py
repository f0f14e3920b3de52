"""Options of `calibrate` as typed, and the settings of a calibration that was begun with them."""

from typing import Any

from kvpareto.calibration.design.options import (
    CalibrationOptions,
    CalibrationSettings,
    settle,
)
from tests.support.fake_bench import LLAMA

NOTHING = CalibrationOptions(
    model="x",
    runs=None,
    minutes=None,
    tasks=None,
    context=None,
    items=None,
    tolerance=None,
    seed=None,
    text=None,
    haystack=None,
    resume=False,
    device=None,
    offline=True,
)


def options(**typed: Any) -> CalibrationOptions:
    return CalibrationOptions(**{**vars(NOTHING), **typed})


def begun(**terms: Any) -> CalibrationSettings:
    return CalibrationSettings(**{**vars(settle(NOTHING, LLAMA, "cuda", None)), **terms})
