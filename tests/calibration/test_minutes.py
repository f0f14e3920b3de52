"""`--minutes` is a promise: what is begun ends in time, by the forecast and by what runs took; and
what a row costs moves the bar."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from transformers import AutoModelForCausalLM

from kvpareto.calibration.design import fit_time
from kvpareto.calibration.design.campaign import CHOICES, CalibrationPlan, Campaign, RunTimes
from kvpareto.calibration.design.time_estimate import ConfigurationTime, TimeEstimate
from kvpareto.calibration.measure.divergence import divergence
from kvpareto.calibration.measure.reference_logits import ReferenceLogits
from kvpareto.calibration.measure.runner import ConfigurationRunner, ProfileIdentity
from kvpareto.calibration.records.record_file import Record
from kvpareto.planner.accuracy import calibrations
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.runtime import Session, load
from tests.calibration.design.typed_options import begun
from tests.support.fake_bench import ITEMS, LLAMA, MadeUpModel, MadeUpTrial
from tests.support.models.damaged_models import STORIES
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


def spend(
    minutes: float,
    seconds: float,
    expected: float,
    spent: float,
    end: float,
    records: list[Record] | None = None,
) -> tuple[float, int, str]:
    """When a calibration of `minutes` ends that has `spent` seconds, and whose fit takes `end`, its
    runs, and why it ended; `records`: the rows that it goes on from."""
    clock, records = Clock(), [] if records is None else records
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
    plan = CalibrationPlan((SHORT, LONG), (16,), 8, minutes, 0.0, 0, forecast, spent, end)
    ending = Campaign(LLAMA, plan, runner, records, lambda number, config: None, clock).run()
    return clock.now, len({(r.config, r.context) for r in records}), ending.reason


def test_rows_that_are_there_do_not_say_that_runs_take_no_time() -> None:
    """A calibration that goes on passes over what it has: the forecast decides of the next run."""
    records = list[Record]()
    first, _, _ = spend(1.0, 10.0, 10.0, 20.0, 4.0, records)
    assert first == 50.0
    ended, runs, _ = spend(1.0, 10.0, 10.0, 20.0, 20.0, records)
    assert (ended, runs) == (20.0, 2)  # 30 s more, and 20 s for the fit, would end at 70
    ended, runs, _ = spend(1.2, 10.0, 10.0, 20.0, 20.0, records)
    assert (ended, runs) == (50.0, 4)


@pytest.mark.parametrize(
    ("minutes", "seconds", "expected", "spent", "end", "runs"),
    [
        (3.0, 10.0, 10.0, 20.0, 4.0, 10),  # five whole configurations of 30 s in 160 - 4
        (3.0, 10.0, 10.0, 20.0, 20.0, 8),  # a fifth would leave 10 s for the fit
        (3.0, 10.0, 10.0, 20.0, 50.0, 6),  # a fourth would leave 40 s
        (1.0, 10.0, 10.0, 20.0, 4.0, 2),  # a second one would end at 80
        (1.0, 10.0, 10.0, 30.0, 4.0, 2),  # the unquantized model ends at 60, and needs no fit
        (1.0, 15.0, 5.0, 20.0, 4.0, 1),  # 3 times as slow as forecast: 30 s more, not 10
        (1.0, 10.0, 10.0, 40.0, 4.0, 0),  # the long context would end at 70
    ],
)
def test_nothing_is_begun_that_would_end_too_late(
    minutes: float, seconds: float, expected: float, spent: float, end: float, runs: int
) -> None:
    ended, found, reason = spend(minutes, seconds, expected, spent, end)
    assert found == runs
    assert reason == f"no other run ends within {minutes:g} minute{'' if minutes == 1 else 's'}"
    assert ended + (end if runs > 2 else 0.0) <= 60 * minutes


@pytest.mark.parametrize(("reading", "weights"), [(10.0, {4, 16}), (40.0, {16})])
def test_weights_of_other_bits_are_read_before_they_are_run(
    reading: float, weights: set[int]
) -> None:
    """The fifth anchor is the first of 4-bit weights: 50 s are left of the minutes there."""
    clock, records = Clock(), list[Record]()
    runner = ConfigurationRunner(
        Slow(clock, 10.0),
        ProfileIdentity(LLAMA.name, calibrations.fingerprint(LLAMA), 0, ENVIRONMENT),
        records,
        records.append,
        items=ITEMS,
        notice=lambda text: None,
    )
    plan = CalibrationPlan((SHORT,), (16, 4), 16, 1.5, 0.0, 0, {SHORT: 10.0}, reading=reading)
    Campaign(LLAMA, plan, runner, records, lambda number, config: None, clock).run()
    assert {Configuration.parse(r.config).weight_bits for r in records} == weights


def test_what_choosing_took_is_left_for_the_end_too() -> None:
    plan = CalibrationPlan((SHORT,), (16,), 8, 1.0, 0.0, 0, {SHORT: 10.0}, 20.0, end=5.0)
    times = RunTimes(plan, Clock())
    assert times.allow((SHORT,), fit=True)  # 35 s
    times.chose(25.0 / CHOICES)
    assert times.allow((SHORT,), fit=True)
    times.chose(26.0 / CHOICES)
    assert not times.allow((SHORT,), fit=True)
    assert times.allow((SHORT,), fit=False)


def test_the_end_is_timed_by_a_fit_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a processor on which the regression takes 2 s, 28 s and what is beside the fit."""
    clock = Clock()

    def slow(rows: Sequence[object], *_: object) -> None:
        assert len(rows) > 1000  # all that were published
        clock.now += 2.0

    monkeypatch.setattr(fit_time, "fit_rows", slow)
    monkeypatch.setattr(fit_time.time, "perf_counter", clock)
    assert fit_time.seconds_at_the_end() == 2.0 * fit_time.OF_ONE + fit_time.BESIDE


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
    assert found.one == 2e6  # as the runs took, not as was forecast


def test_a_forecast_under_load_is_made_again_and_the_shorter_holds() -> None:
    loaded, idle = (
        TimeEstimate(
            {512: ConfigurationTime(4.0 * pace, 0.5, 3), 1024: ConfigurationTime(8.0, pace, 3)},
            0.01 * pace,
        )
        for pace in (15.0, 1.0)
    )
    asked = begun(contexts=(512, 1024), items=8)
    assert loaded.few(asked, 6.0)
    assert not idle.few(asked, 1.0)
    for found in (loaded.shorter(idle), idle.shorter(loaded)):
        assert found == idle


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
