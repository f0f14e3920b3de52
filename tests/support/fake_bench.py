"""A bench without a runtime, and a campaign on it: the rules of a calibration, in milliseconds."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from kvpareto.calibration.design.campaign import CalibrationPlan, Campaign
from kvpareto.calibration.measure.divergence import Divergence
from kvpareto.calibration.measure.layer_sensitivity import Sensitivity
from kvpareto.calibration.measure.runner import ConfigurationRunner, ProfileIdentity
from kvpareto.calibration.measure.trial import Speed
from kvpareto.calibration.records.record_file import Memory, Record
from kvpareto.calibration.tasks.scores import Score
from kvpareto.planner.accuracy import calibrations
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from tests.support.record_writer import ENVIRONMENT

LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
TASKS = ("needle-multikey", "arithmetic")
ITEMS = 40


class MadeUpModel:
    """A bench without a runtime: retention falls with the noise of the bits, as in the paper.

    `fails` maps a configuration to what running it raises.
    """

    def __init__(self, fails: dict[str, BaseException] | None = None, able: float = 1.0) -> None:
        self.fails, self.able = fails or {}, able
        self.keys = (1.0, 1.0, *[0.01] * 30)
        self.opened: list[str] = []
        self.scored: list[tuple[str, str, int]] = []

    def fitting_tasks(self, context: int) -> list[str]:
        return list(TASKS)

    def probe(self) -> tuple[Sensitivity, int]:
        return Sensitivity(self.keys, (0.01,) * len(self.keys)), 512

    @contextmanager
    def open(self, config: Configuration, context: int) -> Iterator["MadeUpTrial"]:
        self.opened.append(str(config))
        if str(config) in self.fails:
            raise self.fails[str(config)]
        yield MadeUpTrial(self, config)


class MadeUpTrial:
    def __init__(self, bench: MadeUpModel, config: Configuration) -> None:
        self.bench, self.config = bench, config
        noise = 8 * (2.0**config.k_bits - 1) ** -2 + 2 * (2.0**config.v_bits - 1) ** -2
        self.kept = 1 / (1 + noise**1.3)

    def divergence(self) -> Divergence:
        excess = Score(-math.log(self.kept), 0.001, (-math.log(self.kept),) * 4)
        one = Score(1.0, 0.0, (1.0,) * 4)
        return Divergence(256, excess, one, one, one, excess)

    def window(self) -> int:
        return 1000

    def score(self, task: str, first: int, last: int) -> Sequence[float]:
        self.bench.scored.append((str(self.config), task, last - first))
        right = round(self.kept * self.bench.able * ITEMS)
        order = np.random.default_rng(0).permutation(ITEMS)
        return [float(order[i] < right) for i in range(first, last)]

    def prompt_tokens(self, task: str) -> int | None:
        return None

    def speed(self) -> Speed:
        return Speed(0.5, 0.01)

    def memory(self) -> Memory:
        return Memory(weights=100, kv=10)


def campaign(
    bench: MadeUpModel,
    records: list[Record],
    runs: int,
    append: Any = None,
    learn: Callable[[], None] | None = None,
    step: Callable[[int, Configuration], None] = lambda number, config: None,
) -> tuple[Campaign, list[str]]:
    notices: list[str] = []
    runner = ConfigurationRunner(
        bench,
        ProfileIdentity(LLAMA.name, calibrations.fingerprint(LLAMA), 0, ENVIRONMENT),
        records,
        append or records.append,
        items=ITEMS,
        notice=notices.append,
    )
    plan = CalibrationPlan((4096,), (16,), runs, None, 0.0, 0)
    made = Campaign(LLAMA, plan, runner, records, step, learn=learn)
    return made, notices


def without_times(records: Sequence[Record]) -> list[Record]:
    return [r.model_copy(update={"started": "", "ended": ""}) for r in records]
