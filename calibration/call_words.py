"""What may be said of a measurement in Python: each word as the option of its command.

Python calls are checked against these types while they are written; what a call is given is held to
the dataclasses of options behind them (planner/typed_words.py), whose defaults are the commands'.
"""

from pathlib import Path
from typing import TypedDict

Count = str | int | None


class CalibrateWords(TypedDict, total=False):
    """What may be said of a calibration beside its model, each as its option of `calibrate`."""

    runs: int | None
    minutes: float | None
    tasks: str | None
    context: Count
    items: int | None
    text: str | Path | None
    haystack: str | Path | None
    tolerance: float | None
    seed: int | None
    resume: bool
    ray: str | None
    affine: bool
    device: str | None
    offline: bool
    trust_remote_code: bool


class VerifyWords(TypedDict, total=False):
    """What may be said of a verification beside its model, each as its option of `verify`."""

    plan: str | Path | None
    config: str | None
    budget: Count
    context: Count
    output: Count
    batch: str | int
    engine: str
    random_weights: bool
    quick: bool
    sweep: int | None
    tasks: str | None
    items: int | None
    seed: int
    binary: str | Path | None
    plugin: bool
    device: str | None
    offline: bool
    trust_remote_code: bool


class RunWords(TypedDict, total=False):
    """What may be said of a run beside its model and prompt, each as its option of `run`."""

    plan: str | Path | None
    config: str | None
    budget: Count
    context: Count
    output: Count
    temperature: float
    top_k: int | None
    top_p: float
    seed: int
    device: str | None
    offline: bool
    trust_remote_code: bool
