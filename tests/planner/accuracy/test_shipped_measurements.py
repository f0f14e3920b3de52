"""Pretrained models that were measured: plans of them rest on it, out of the box, and say so."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from kvpareto import profiles
from kvpareto.calibration.fit.measured_models import (
    MODELS,
    SHIPPED,
    STRANGERS,
    measured_runs,
    scored_runs,
)
from kvpareto.planner.accuracy.calibration_files.check import check_payload
from kvpareto.planner.accuracy.predict import predict, predict_many, predictor_for, published
from kvpareto.planner.accuracy.shipped_measurements import measured_as, measured_models
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration, Granularity
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.search.evaluate import evaluate
from kvpareto.planner.workload import Workload
from kvpareto.report.profiles import list_document, show_document
from tests.cli.answers import document

LARGER, CODER, SMOL, GEMMA = (
    "Qwen/Qwen2.5-Coder-1.5B-Instruct",
    "Qwen/Qwen2.5-Coder-0.5B-Instruct",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "google/gemma-3-270m",
)


@pytest.fixture(autouse=True)
def nothing_of_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))


def spec_of(name: str) -> ModelSpec:
    return load_model(name, offline=True)


@pytest.mark.parametrize("name", [LARGER, CODER, SMOL, GEMMA, "smollm2"])
def test_a_plan_says_that_the_model_was_measured_and_on_which_weights(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, "plan", "-m", name, "--budget", "4GB", "--context", "4k")
    assert {point["accuracy"]["provenance"] for point in found["frontier"]} <= {
        "calibrated",
        "measured",
    }
    said = [text for text in found["warnings"] if "16 bits mean that file's values" in text]
    assert said or found["recommended"]["config"].startswith("w16a16-k16v16")
    estimate = document(
        capsys, "estimate", "-m", name, "--config", "w16a16-k4v4", "--context", "4k"
    )
    assert any("SHA-256" in note and "NVIDIA H200" in note for note in estimate["warnings"])


def test_a_configuration_that_was_run_is_measured() -> None:
    """At 1,024 tokens both kinds of the headline were: needles at 2,048, GSM8K at about 1,024."""
    config = Configuration.parse("w16a16-k4v2-kc+pc1024")
    runs = [
        row.retention
        for run, row in [*measured_runs(), *scored_runs()]
        if run == config and row.model == MODELS[CODER] and row.task == "gsm8k"
    ]
    found = predict(spec_of(CODER), config, 1024)
    assert found.tasks["reasoning"].retention == pytest.approx(sum(runs) / len(runs), abs=1e-5)
    agrees = Configuration.parse("w16a16-k4v4-kc+pc1024")
    needles = predict(spec_of(CODER), agrees, 8192)
    assert needles.tasks["retrieval"].retention == pytest.approx(1.0, abs=0.02)
    collapsed = predict(spec_of(CODER), Configuration.parse("w16a16-k4v4+pc1024"), 1024)
    assert collapsed.tasks["reasoning"].high < 0.15
    # GSM8K of few items: .954 with a deviation of .062, which the fit has seen and explains.
    assert predict(spec_of(CODER), agrees, 1024).tasks["reasoning"].low > 0.95


@pytest.mark.parametrize("name", [LARGER, CODER, SMOL, GEMMA])
def test_a_run_of_8_bits_promises_no_less_than_8_bits_that_nobody_ran(name: str) -> None:
    """Runs of few items said of 16-bit weights what no coarser prediction says: .88 of .997."""
    spec = spec_of(name)
    shipped = predictor_for(spec).payload["measured"]
    runs = [(Configuration.parse(entry["config"]), entry["context"]) for entry in shipped]
    near = [
        (config, context)
        for config, context in runs
        if (config.k_bits, config.v_bits) == (8, 8) and config.granularity is Granularity.PER_TOKEN
    ]
    assert near
    for config, context in near:
        coarser = predict(spec, replace(config, weight_bits=8), context)
        assert predict(spec, config, context).low >= coarser.low, (str(config), context)


def test_tasks_at_the_same_bytes_are_told_and_not_learnt_from(tmp_path: Path) -> None:
    def line(text: str, items: str) -> str:
        task = {"score": items.count("1") / len(items), "parts": 1, "items": items}
        row = {"model": CODER, "kind": "tasks", "config": f"w16a16-{text}+pc1024", "context": 1024}
        return json.dumps({**row, "tasks": {"needle-16": task}})

    rows = [line("k16v16", "1111111110"), line("k2v2-kc128+affine", "1111111000")]
    (tmp_path / "same_bytes_made_up.jsonl").write_text("\n".join(rows) + "\n")
    assert measured_runs(tmp_path) == []
    ((config, row),) = scored_runs(tmp_path)
    assert str(config) == "w16a16-k2v2-kc128+affine+pc1024"
    assert (row.kind, row.context) == ("retrieval", 1024)
    assert row.retention == pytest.approx(7 / 9)
    told = {(str(config), row.model) for config, row in scored_runs(models=SHIPPED)}
    for name, key in SHIPPED.items():
        shipped = json.loads(profiles.read(f"measured/{measured_models()[name]['file']}"))
        names = {entry["config"] for entry in shipped["measured"]}
        assert {config for config, model in told if model == key} <= names


def test_own_rows_bring_what_published_rows_do_not() -> None:
    """Tasks of all runs: 5 points off by published rows where keys are read, else 13 to 18; 3 to 8
    by the own ones."""
    runs = measured_runs(models=SHIPPED)
    for name, key in SHIPPED.items():
        own = [(c, r) for c, r in runs if r.model == key and r.kind != "perplexity"]
        errors = {"own": 0.0, "published": 0.0}
        spec = spec_of(name)
        for config, row in own:
            for which, predictor in (("own", predictor_for(spec)), ("published", published())):
                kept = predict(spec, config, row.context, predictor).tasks[row.kind].retention
                errors[which] += abs(kept - min(row.retention, 1.0)) / len(own)
        assert errors["own"] < 0.7 * errors["published"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param("Qwen/Qwen2.5-0.5B-Instruct", id="the same shape, another name"),
        pytest.param("HuggingFaceTB/SmolLM2-360M-Instruct", id="another size"),
        pytest.param("google/gemma-3-1b-it", id="another size of Gemma"),
    ],
)
def test_relatives_do_not_share_it(other: str) -> None:
    assert measured_as(spec_of(other)) is None
    assert predict(spec_of(other), Configuration.parse("w16a16-k4v4"), 1024).provenance not in (
        "measured",
        "calibrated",
    )


def test_names_of_folders_and_files_count_and_shapes_must_agree() -> None:
    spec = spec_of(CODER)
    assert measured_as(replace(spec, name="/models/qwen2.5-coder-0.5b-instruct/")) is None
    assert measured_as(replace(spec, name="qwen2.5-coder-0.5b-instruct")) == CODER
    assert measured_as(replace(spec, name="someone/Qwen2.5-Coder-0.5B-Instruct")) is None
    assert measured_as(replace(spec, hidden=897)) is None


@pytest.mark.parametrize("name", [LARGER, CODER, SMOL, GEMMA])
def test_what_ships_is_a_whole_calibration(name: str) -> None:
    predictor = check_payload(predictor_for(spec_of(name)).payload)
    held_out = measured_models()[name]["held_out"]
    assert held_out["coverage"] >= 0.88
    assert held_out["mae"] < {LARGER: 0.11}.get(name, 0.1)  # most of its formats break
    assert (
        predictor.measured.longest
        == {
            LARGER: 32768,
            SMOL: 8192,
            CODER: 32768,
            GEMMA: 16384,
        }[name]
    )


def test_profiles_name_them() -> None:
    listed = {one["model"]: one for one in list_document()["measured"]}
    assert set(listed) == {LARGER, CODER, SMOL, GEMMA}
    assert sum(one["points"] for one in listed.values()) == 1318 + 416
    facts = show_document(CODER)["facts"]
    assert any("Q4_K_M" in line for line in facts["measured"])
    assert "measured" not in show_document("Qwen/Qwen2.5-7B-Instruct")["facts"]
    json.dumps(listed)


def test_the_shared_fit_does_not_see_strangers(tmp_path: Path) -> None:
    """Rows of the 1.5B model are told; what is predicted of it without them stays blind."""
    (name,), (key,) = STRANGERS, STRANGERS.values()
    assert key not in {row.model for _, row in measured_runs()}
    assert key in {row.model for _, row in measured_runs(models=SHIPPED)}
    models = published().payload["models"]
    assert not any(name in entry["names"] for entry in models.values())


def test_exams_have_a_floor_and_count_where_the_model_does_not_guess(tmp_path: Path) -> None:
    def line(text: str, items: str) -> str:
        task = {"score": items.count("1") / len(items), "parts": 1, "items": items}
        row = {"model": LARGER, "kind": "choices", "config": f"w16a16-{text}", "context": 0}
        return json.dumps({**row, "tasks": {"mmlu": task}})

    rows = [line("k16v16", "1111100000"), line("k4v4", "1110000000")]
    (tmp_path / "same_bytes_made_up.jsonl").write_text("\n".join(rows) + "\n")
    ((_, row),) = scored_runs(tmp_path, SHIPPED)
    assert (row.kind, row.chance, row.baseline) == ("short_reasoning", 0.25, 0.5)
    assert row.retention == pytest.approx(0.6)
    assert scored_runs(tmp_path) == []
    guessed = [line("k16v16", "1110000000"), line("k4v4", "1100000000")]
    (tmp_path / "same_bytes_made_up.jsonl").write_text("\n".join(guessed) + "\n")
    assert scored_runs(tmp_path, SHIPPED) == []  # 30 % where guessing scores 25


@pytest.mark.parametrize("name", [LARGER, CODER, SMOL, GEMMA])
@pytest.mark.parametrize("context", [1024, 2048, 8192])
def test_more_bits_promise_no_less_and_fewer_no_more_than_a_run(name: str, context: int) -> None:
    spec = spec_of(name)
    measured = predictor_for(spec).measured
    for run in measured.configurations():
        kinds = measured.of(run, context).keys()
        if not kinds or run.v_bits >= 8 or run.v_format:
            continue
        more = replace(run, v_bits=2 * run.v_bits), replace(run, v_bits=run.v_bits + 1)
        fewer = replace(run, v_bits=max(run.v_bits - 1, 2)), replace(run, weight_bits=4)
        known, *beside = predict_many(spec, [run, *more, *fewer], context)
        for kind, up, down in product(kinds, beside[:2], beside[2:]):
            less, kept, most = down.tasks[kind], known.tasks[kind], up.tasks[kind]
            assert less.retention <= kept.retention <= most.retention, (run, kind)
            assert less.low <= kept.low <= most.low, (run, kind)
            assert less.high <= kept.high <= most.high, (run, kind)


def test_a_plan_holds_what_lies_beside_a_run_to_it() -> None:
    spec = spec_of(LARGER)
    space = evaluate(spec, Workload(8192, 256), KVPARETO, None)
    named = ("w16a16-k4v8+smooth", "w16a16-k4v4+smooth", "w4a16-k4v4-kc", "w16a16-k8v4")
    wanted = {Configuration.parse(text) for text in named}
    at = [i for i in range(len(space.points.low)) if space.space.configuration(i) in wanted]
    assert len(at) == len(wanted)
    for i, kept in zip(
        at, predict_many(spec, [space.space.configuration(i) for i in at], 8192), strict=True
    ):
        assert (space.points.retention[i], space.points.low[i]) == (kept.retention, kept.low)
