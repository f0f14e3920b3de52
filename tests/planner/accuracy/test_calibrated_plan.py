"""What a plan makes of a calibration: measured where it was run, calibrated elsewhere, warned."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from kvpareto.calibration.design.campaign import write_profile
from kvpareto.calibration.fit.collapse import breaking_context
from kvpareto.calibration.fit.profile import fit_profile, measured_configurations
from kvpareto.calibration.records.record_file import ROWS, Record, RecordFile, read_records
from kvpareto.planner.accuracy import calibrations
from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.accuracy.measured_configs import numerically
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.search.evaluate import evaluate
from kvpareto.planner.workload import Workload
from tests.support.fake_bench import ITEMS, LLAMA, TASKS, MadeUpModel, campaign
from tests.support.record_writer import ENVIRONMENT

pytestmark = pytest.mark.usefixtures("few_published_rows")


def test_a_calibrated_plan_knows_what_was_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    folder = calibrations.folder_of(LLAMA)
    four, eight = Configuration(k_bits=4, v_bits=4), Configuration(k_bits=8, v_bits=8)
    two = Configuration(v_bits=2)
    assert accuracy.predict(LLAMA, two, 4096).provenance == "published"
    with RecordFile(folder) as file:
        campaign(MadeUpModel(), file.records, 6, file.append)[0].run()
        meta = write_profile(folder, LLAMA, file.records, ENVIRONMENT)
    assert (meta["configurations"], meta["failed"], meta["other_versions"]) == (6, 0, 0)
    after = accuracy.predict(LLAMA, two, 4096)
    measured = {r.task: r for r in read_records(folder / ROWS) if "k16v2" in r.config}
    assert after.provenance == "measured"
    expected = sum(measured[task].retention or 0 for task in TASKS) / 2
    assert after.retention == pytest.approx(expected)
    assert after.low < after.retention < after.high <= 1
    # The chunk it was measured with does not matter to per-token scales, the context does.
    assert accuracy.predict(LLAMA, two.with_chunk(256), 4096) == after
    assert accuracy.predict(LLAMA, two, 4000).tasks["reasoning"] == after.tasks["reasoning"]
    assert accuracy.predict(LLAMA, two, 2000).provenance == "calibrated"
    beyond = accuracy.predict(LLAMA, two, 8192)
    assert beyond.provenance == "calibrated"
    assert any("this model was measured at (4,096 tokens)" in note for note in beyond.notes)
    assert accuracy.predict(LLAMA, replace(two, k_bits=8), 4096).provenance == "calibrated"
    # Runs of 40 items that agree with what the fit says of them promise no less than it does.
    for config, least in ((eight, 0.999), (four, 0.89)):
        known = accuracy.predict(LLAMA, config, 4096)
        assert known.provenance == "calibrated"
        assert known.low > least
    # Neither another name nor another shape is this model.
    assert calibrations.find(replace(LLAMA, name="other/tuned")) is None
    assert calibrations.find(replace(LLAMA, name="copy/llama-3.1-8b-instruct")) is not None
    assert calibrations.find(replace(LLAMA, hidden=4160)) is None


def test_the_plan_and_the_single_prediction_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    folder = calibrations.folder_of(LLAMA)
    with RecordFile(folder) as file:
        campaign(MadeUpModel(), file.records, 6, file.append)[0].run()
        write_profile(folder, LLAMA, file.records, ENVIRONMENT)
    table = evaluate(LLAMA, Workload(4096), KVPARETO, None)
    names = {i: str(table.space.configuration(i)) for i in range(len(table.space))}
    run_ones = {"w16a16-k16v2", "w16a16-k16v2+pc256", "w16a16-k8v8"}
    places = [i for i, name in names.items() if name in run_ones or i % 20_011 == 0]
    points = table.points_at(places)
    assert {p.accuracy.provenance for p in points} == {"measured", "calibrated"}
    for i, point in zip(places, points, strict=True):
        assert table.points.retention[i] == pytest.approx(point.accuracy.retention, abs=1e-9)
        assert table.points.low[i] == pytest.approx(point.accuracy.low, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("w16a16-k4v4+pc256", "w16a16-k4v4"),
        ("w16a16-k4v4-g64+smooth+pc256", "w16a16-k4v4-g64+smooth"),
        ("w4a16-k16v16+pc256", "w4a16-k16v16"),
        ("w16a16-k4v4+res128+pc256", "w16a16-k4v4+res128+pc256"),
        ("w16a16-k4v4-kc+pc256", "w16a16-k4v4-kc+pc256"),
        ("w16a16-k4v4-pt+pc256", "w16a16-k4v4-pt+pc256"),
    ],
)
def test_chunks_are_left_out_only_where_they_change_nothing(text: str, same: str) -> None:
    assert str(numerically(Configuration.parse(text))) == same


def test_tasks_of_a_kind_are_averaged_with_their_error() -> None:
    records: list[Record] = []
    campaign(MadeUpModel(), records, 2)[0].run()
    twice = [r for r in records if r.task == "arithmetic"]
    twice += [r.model_copy(update={"task": "variables", "retention": 0.9}) for r in twice]
    (found,) = measured_configurations(twice)
    sd = 1 / (ITEMS + 2)
    assert found["kinds"] == {"reasoning": pytest.approx([0.95, sd / math.sqrt(2)], abs=1e-5)}


def test_the_context_at_which_the_model_itself_breaks_is_carried_and_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[Record] = []
    campaign(MadeUpModel(), records, 2)[0].run()
    at = {
        context: [r.model_copy(update={"context": context, "score": score}) for r in records]
        for context, score in ((2048, 0.9), (4096, 1.0), (8192, 0.6), (16384, 0.4), (32768, 0.1))
    }
    assert breaking_context([r for rows in at.values() for r in rows]) == 16384
    assert breaking_context([*at[2048], *at[4096], *at[8192]]) is None
    assert breaking_context([*at[32768], *at[16384]]) == 32768
    assert breaking_context([]) is None
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    folder = calibrations.folder_of(LLAMA)
    folder.mkdir(parents=True)
    write_profile(folder, LLAMA, [*at[4096], *at[16384]], ENVIRONMENT)
    says = "from 16,384 tokens on this model, unquantized, scores less than half of its best"
    for config in (Configuration(), Configuration(k_bits=2, v_bits=2)):
        for context, warned in ((16383, False), (16384, True), (40000, True)):
            breaks = accuracy.predict(LLAMA, config, context).breaks
            assert any(says in line for line in breaks) is warned


def test_nothing_measured_is_no_profile() -> None:
    assert fit_profile(LLAMA, []) is None
