"""`--minutes` is a promise: what is begun ends in time, by the forecast and by what runs took; and
what a row costs moves the bar."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from transformers import AutoModelForCausalLM

from kvpareto.calibration.design.campaign import FIT_S, CalibrationPlan, Campaign
from kvpareto.calibration.design.time_estimate import ConfigurationTime, TimeEstimate
from kvpareto.calibration.measure.divergence import divergence
from kvpareto.calibration.measure.reference_logits import ReferenceLogits
from kvpareto.calibration.measure.runner import ConfigurationRunner, ProfileIdentity
from kvpareto.calibration.records.record_file import Record
from kvpareto.planner.accuracy import calibrations
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.runtime import Session, load
from tests.calibration.design.test_options import begun
from tests.support.damaged_models import STORIES
from tests.support.fake_bench import ITEMS, LLAMA, MadeUpModel, MadeUpTrial
from tests.support.record_writer import ENVIRONMENT

SHORT, LONG = 2048, 4096


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(MadeUpModel):
    """A run at the short context takes `seconds`, at the long one twice that."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    @contextmanager
    def open(self, config: Configuration, context: int) -> Iterator[MadeUpTrial]:
        with super().open(config, context) as trial:
            yield trial
        self.clock.now += self.seconds * context / SHORT


def spend(minutes: float, seconds: float, expected: float, spent: float) -> tuple[float, int, str]:
    """When a calibration of `minutes` ends that has `spent` seconds, its rows, and why it ended."""
    clock, records = Clock(), list[Record]()
    clock.now = spent
    runner = ConfigurationRunner(
        Slow(clock, seconds),
        ProfileIdentity(LLAMA.name, calibrations.fingerprint(LLAMA), 0, ENVIRONMENT),
        records,
        records.append,
        items=ITEMS,
        notice=lambda text: None,
    )
    forecast = {SHORT: expected, LONG: 2 * expected}
    plan = CalibrationPlan((SHORT, LONG), (16,), 8, minutes, 0.0, 0, forecast, spent)
    ending = Campaign(LLAMA, plan, runner, records, lambda number, config: None, clock).run()
    return clock.now, len({(r.config, r.context) for r in records}), ending.reason


@pytest.mark.parametrize(
    ("minutes", "seconds", "expected", "spent", "runs"),
    [
        (3.0, 10.0, 10.0, 20.0, 10),  # five whole configurations of 30 s in 160 - 4
        (1.0, 10.0, 10.0, 20.0, 2),  # a second one would end at 80
        (1.0, 10.0, 10.0, 40.0, 1),  # the long context would end at 70
        (1.0, 15.0, 5.0, 20.0, 1),  # 3 times as slow as forecast: 30 s more, not 10
        (0.1, 10.0, 10.0, 30.0, 1),  # the unquantized model is run in any case
    ],
)
def test_nothing_is_begun_that_would_end_too_late(
    minutes: float, seconds: float, expected: float, spent: float, runs: int
) -> None:
    ended, found, reason = spend(minutes, seconds, expected, spent)
    assert found == runs
    assert reason == ("1 minute is spent" if minutes == 1 else f"{minutes:g} minutes are spent")
    if runs > 1:
        assert ended + FIT_S <= 60 * minutes


def test_without_minutes_all_runs_are_run() -> None:
    clock = Clock()
    plan = CalibrationPlan((4096,), (16,), 4, None, 0.0, 0, {4096: 1e9}, 1e9)
    records: list[Record] = []
    runner = ConfigurationRunner(
        Slow(clock, 1e6),
        ProfileIdentity(LLAMA.name, calibrations.fingerprint(LLAMA), 0, ENVIRONMENT),
        records,
        records.append,
        items=ITEMS,
        notice=lambda text: None,
    )
    found = Campaign(LLAMA, plan, runner, records, lambda number, config: None, clock).run()
    assert found.reason == "4 configurations were run"


def test_shares_of_a_configuration_add_up() -> None:
    forecast = TimeEstimate(
        {512: ConfigurationTime(4.0, 0.5, 3), 1024: ConfigurationTime(8.0, 1.0, 3)}
    )
    asked = begun(contexts=(512, 1024), items=8)  # 4 + 4 and 8 + 8 seconds
    rows = [(t, c) for c in (512, 1024) for t in ("divergence", "needle-multikey", "variables")]
    shares = [forecast.share(task, context, asked) for task, context in rows]
    assert shares == pytest.approx([4 / 24, 2 / 24, 2 / 24, 8 / 24, 4 / 24, 4 / 24])


@pytest.mark.parametrize(("seconds", "tokens"), [(None, 256), (640.0, 256), (320.0, 128), (1, 32)])
def test_the_probe_takes_a_tenth_of_the_time(seconds: float | None, tokens: int) -> None:
    # 2 + 1/8 passes of 16 layers at 1/136 s a token: a quarter of a second for each token
    assert TimeEstimate({}, 1 / 136).probe_tokens(16, seconds) == tokens


@pytest.fixture
def sessions() -> Iterator[tuple[Session, Session]]:
    model = AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32)
    with (
        load(model, "w16a16-k16v16", context=96, output=0) as reference,
        load(model, "w16a16-k4v4-g32+pc32", context=96, output=0) as quantized,
    ):
        yield reference, quantized


@pytest.mark.parametrize(("most", "passes"), [(2**30, 6), (0, 12), (200_000, 9)])
def test_the_unquantized_model_reads_a_window_once(
    most: int, passes: int, sessions: tuple[Session, Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two windows of three chunks, 190 kB of logits each, compared twice."""
    reference, quantized = sessions
    windows = torch.randint(3, 512, (2, 96), generator=torch.Generator().manual_seed(0))
    expected = divergence(reference, quantized, windows)
    read = []
    hook = reference.model.register_forward_hook(
        lambda model, args, kwargs, output: read.append(kwargs["past_key_values"]),
        with_kwargs=True,
    )
    kept = ReferenceLogits(reference, most)
    assert divergence(kept, quantized, windows) == expected
    assert divergence(kept, quantized, windows) == expected
    hook.remove()
    assert sum(cache is reference.cache for cache in read) == passes
