"""When a calibration learns affine maps by itself, and what it says that they were worth."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvpareto.calibration.design import campaign as made
from kvpareto.calibration.design import telling_candidates
from kvpareto.calibration.design.affine_proposal import AFFINE, TWIN, gain, proposes, sentence
from kvpareto.calibration.design.campaign import CalibrationPlan, Campaign, write_profile
from kvpareto.calibration.design.findings import findings_of
from kvpareto.calibration.fit.profile import fit_profile
from kvpareto.calibration.records.record_file import Record
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from tests.support.fake_bench import LLAMA, MadeUpModel, MadeUpTrial, campaign
from tests.support.record_writer import ENVIRONMENT

RAN = str(AFFINE.with_chunk(1024))


@pytest.fixture(autouse=True)
def few_candidates(few_published_rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells most is of no concern here."""
    monkeypatch.setattr(telling_candidates, "POOL", 30)


class Mapped(MadeUpModel):
    """With maps, two bits keep nine tenths."""

    @contextmanager
    def open(self, config: Configuration, context: int) -> Iterator[MadeUpTrial]:
        with super().open(config, context) as trial:
            trial.kept = 0.9 if config.affine else trial.kept
            yield trial


def test_maps_are_learnt_once_where_two_bits_lose_something() -> None:
    bench, records, learnt = Mapped(), [], []

    def learn() -> None:
        learnt.append(len(bench.opened))

    campaign(bench, records, 16, learn=learn)[0].run()
    assert learnt == [bench.opened.index(RAN)]  # right before their run
    assert learnt[0] >= 4  # behind the anchors
    assert len(set(bench.opened)) == 16  # and one of the runs asked for
    before = len(records)
    campaign(bench, records, 16, learn=learn)[0].run()
    assert (len(learnt), len(records)) == (1, before)


def test_not_in_a_short_calibration_nor_where_nothing_can_be_learnt() -> None:
    for runs, learn in ((8, pytest.fail), (16, None)):
        bench = Mapped()
        campaign(bench, [], runs, learn=learn)[0].run()  # type: ignore[arg-type]
        assert RAN not in bench.opened


def test_not_where_two_bits_cost_nothing_nor_for_latents() -> None:
    records: list[Record] = []
    campaign(Mapped(), records, 5)[0].run()
    assert proposes(LLAMA, 16, records, 4096)
    assert not proposes(LLAMA, 16, records, 8192)  # nothing was run there
    assert not proposes(load_model("deepseek-ai/DeepSeek-V2-Lite", offline=True), 16, records, 4096)
    kept = [r.model_copy(update={"retention": 0.98}) for r in records]
    assert not proposes(LLAMA, 16, kept, 4096)


def test_not_where_the_minutes_leave_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[Record] = []
    bench = Mapped()
    made = campaign(bench, records, 16, learn=pytest.fail)[0]  # type: ignore[arg-type]
    now = iter(range(0, 100_000, 10))
    plan = CalibrationPlan((4096,), (16,), 16, 1.3, 0.0, 0, {4096: 10.0})
    Campaign(
        LLAMA, plan, made._runner, records, lambda *_: None, lambda: float(next(now)),
        learn=pytest.fail,  # type: ignore[arg-type]
    ).run()  # fmt: skip
    assert RAN not in bench.opened


def test_what_they_were_worth_is_said_and_the_fit_does_not_learn_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[Record] = []
    campaign(Mapped(), records, 16, learn=lambda: None)[0].run()
    without = [r for r in records if r.config != RAN]
    assert len(without) < len(records)
    payload = fit_profile(LLAMA, records)
    plain = fit_profile(LLAMA, without)
    assert payload is not None
    assert plain is not None
    assert payload["models"] == plain["models"]
    assert [m["config"] for m in payload["measured"] if "affine" in m["config"]] == [RAN]
    found = gain(LLAMA, records, payload)
    assert found is not None
    assert (found["config"], found["context"], found["retention"]) == (str(AFFINE), 4096, 0.9)
    assert 0.0 < found["without"] < 0.9
    assert gain(LLAMA, without, payload) is None
    assert f"keeps 90.0% of the score at 4,096 tokens; without them {found['without']:.1%}" in (
        sentence(found)
    )
    fits = {len(records): payload}  # it was fitted above
    monkeypatch.setattr(made, "fit_profile", lambda spec, rows: fits[len(rows)])
    meta = write_profile(tmp_path, LLAMA, records, ENVIRONMENT)
    assert json.loads((tmp_path / "meta.json").read_text())["affine"] == found
    assert findings_of(meta)[-1] == sentence(found)
    assert str(TWIN) == "w16a16-k2v2-kc128"
