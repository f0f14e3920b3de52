"""What a calibration runs, in which order, and when it stops: on a stand-in for the runtime."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from kvpareto.calibration.measure.runner import TooManyCrashes
from kvpareto.calibration.records.record_file import Record
from kvpareto.planner.formats.configuration import Configuration
from tests.support.fake_bench import ITEMS, TASKS, MadeUpModel, MadeUpTrial, campaign, without_times


def test_rows_say_what_was_measured() -> None:
    records: list[Record] = []
    campaign(MadeUpModel(), records, 3)[0].run()
    of_4 = {r.task: r for r in records if "k4v4" in r.config}
    assert list(of_4) == ["divergence", *TASKS]
    # 8/225 + 2/225 of noise, to the power of 1.3
    kept = 1 / (1 + (10 / 225) ** 1.3)
    assert of_4["divergence"].retention == pytest.approx(kept)
    assert of_4["divergence"].ttft_s == 0.5
    assert of_4["needle-multikey"].score == round(kept * ITEMS) / ITEMS
    assert of_4["needle-multikey"].reference == 1.0
    assert [of_4[task].kind for task in TASKS] == ["retrieval", "reasoning"]
    assert len(of_4["arithmetic"].items) == ITEMS


def test_equal_scores_are_not_certain() -> None:
    records: list[Record] = []
    campaign(MadeUpModel(), records, 2)[0].run()
    of_8 = next(r for r in records if "k8v8" in r.config and r.task == "arithmetic")
    assert of_8.retention == 1.0
    assert of_8.retention_sd == pytest.approx(1 / (ITEMS + 2))


def test_what_does_not_fit_or_crashes_is_a_row_and_is_not_tried_again() -> None:
    fails = {
        "w16a16-k8v8+pc1024": torch.OutOfMemoryError("CUDA out of memory.\nTried 9 GiB"),
        "w16a16-k4v4+pc1024": RuntimeError("kernel\nfailed"),
    }
    bench, records = MadeUpModel(fails), []
    campaign(bench, records, 5)[0].run()
    failed = {r.config: r for r in records if r.outcome != "ok"}
    assert {c: r.outcome for c, r in failed.items()} == {
        "w16a16-k8v8+pc1024": "out_of_memory",
        "w16a16-k4v4+pc1024": "crashed",
    }
    assert failed["w16a16-k4v4+pc1024"].reason == "RuntimeError: kernel failed"
    assert len(set(bench.opened)) == len(bench.opened) == 5
    before = len(records)
    campaign(bench, records, 5)[0].run()
    assert len(records) == before


def test_three_crashes_in_a_row_end_the_calibration() -> None:
    fails = {
        f"w16a16-{bits}+pc1024": RuntimeError("no driver") for bits in ("k8v8", "k4v4", "k2v16")
    }
    records: list[Record] = []
    with pytest.raises(TooManyCrashes, match="no driver"):
        campaign(MadeUpModel(fails), records, 8)[0].run()
    assert [r.outcome for r in records].count("crashed") == 3


def test_hopeless_runs_end_early() -> None:
    class Lost(MadeUpModel):
        @contextmanager
        def open(self, config: Configuration, context: int) -> Iterator[MadeUpTrial]:
            trial = MadeUpTrial(self, config)
            trial.kept *= 0.8 if config.k_bits == 2 else 1.0  # 0.54 otherwise
            yield trial

    records: list[Record] = []
    campaign(Lost(), records, 4)[0].run()
    lost = [r for r in records if "k2v16" in r.config]
    assert [r.task for r in lost] == ["divergence"]
    assert lost[0].reason == "no task was run: the text itself is lost"

    class WrongAnswers(MadeUpTrial):
        def score(self, task: str, first: int, last: int) -> Sequence[float]:
            found = super().score(task, first, last)
            return found if self.config.k_bits == 16 else [0.0] * len(found)

    class Wrong(MadeUpModel):
        @contextmanager
        def open(self, config: Configuration, context: int) -> Iterator[MadeUpTrial]:
            yield WrongAnswers(self, config)

    records = []
    campaign(Wrong(), records, 2)[0].run()
    ended = [r for r in records if "k8v8" in r.config and r.task in TASKS]
    assert [(len(r.items), r.retention) for r in ended] == [(8, 0.0), (8, 0.0)]
    assert ended[0].reason == "ended after 8 of 40 items: it keeps less than half"


def test_a_task_beyond_the_model_is_measured_once() -> None:
    bench, records = MadeUpModel(able=0.05), []
    runs, notices = campaign(bench, records, 3)
    runs.run()
    unquantized = "w16a16-k16v16+pc1024"
    # 2 of 40 items are right; of the first 8 none is, which leaves room for 0.25 at most
    assert bench.scored == [(unquantized, task, 8) for task in TASKS]
    assert len(notices) == 2
    assert all("the unquantized model scores 0.00" in notice for notice in notices)


def test_a_death_at_any_row_changes_nothing_in_the_end(tmp_path: Path) -> None:
    whole: list[Record] = []
    campaign(MadeUpModel(), whole, 7)[0].run()

    class Death(BaseException):
        pass

    for death in range(0, len(whole), 2):
        records: list[Record] = []

        def append(record: Record, death: int = death, records: list[Record] = records) -> None:
            records.append(record)
            if len(records) == death + 1:
                raise Death

        with pytest.raises(Death):
            campaign(MadeUpModel(), records, 7, append)[0].run()
        campaign(MadeUpModel(), records, 7)[0].run()
        assert without_times(records) == without_times(whole)


def test_a_long_calibration_goes_on_with_what_tells_most() -> None:
    """After the anchors, of which 8 bits are none, it runs formats that the noise of this model is
    not known of, and repeats none."""

    class Enough(Exception):
        pass

    begun: list[Configuration] = []

    def step(number: int, config: Configuration) -> None:
        if number == 6:
            raise Enough
        begun.append(config.with_chunk(None))

    records: list[Record] = []
    made = campaign(MadeUpModel(), records, 14, step=step)[0]
    with pytest.raises(Enough):
        made.run()
    anchors = ["w16a16-k16v16", "w16a16-k4v4", "w16a16-k2v16", "w16a16-k16v2"]
    assert [str(config) for config in begun[:4]] == anchors
    assert len(set(begun)) == len(begun) == 6
    for config in begun[4:]:
        assert min(config.k_bits, config.v_bits) <= 4
        assert str(config) not in anchors


def test_a_calibration_with_a_noise_of_its_own_says_what_it_expects_everywhere() -> None:
    """Below 12 configurations there is no fit of the model's own that could."""
    few = campaign(MadeUpModel(), [], 7)[0].run()
    assert few.expected_everywhere is None
    many = campaign(MadeUpModel(), [], 14)[0].run()
    assert many.configurations == 14
    assert many.expected_everywhere is not None
    assert 0.0 < many.expected_everywhere < 0.15
