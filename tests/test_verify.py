"""`kvpareto verify` from outside: receipts, exit codes, plan files, rows, Ctrl-C."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kvpareto.calibration.execution_record import Execution
from kvpareto.calibration.records import ROWS, read_records
from kvpareto.calibration.scores import Score
from kvpareto.calibration.verify import verify as verification
from kvpareto.calibration.verify.corrected import MARGIN, correction
from kvpareto.calibration.verify.question import Question, from_plan, predict
from kvpareto.calibration.verify.receipt import receipt
from kvpareto.calibration.verify.retention import compare
from kvpareto.calibration.verify.terms import Term, latency_terms, memory_terms
from kvpareto.cli import run
from kvpareto.planner import calibrations
from kvpareto.planner.configuration import Configuration
from kvpareto.planner.hardware import find_gpu
from kvpareto.planner.model_source import load_model
from kvpareto.planner.request import Request
from kvpareto.planner.units import GB
from kvpareto.planner.workload import Engine, Workload
from kvpareto.runtime.forward import Forward

from .record_writer import ENVIRONMENT

STORIES = str(Path(__file__).parent / "data" / "stories260K-hf")
SPEC = load_model(STORIES)
SHAPE = ["--context", "256", "--output", "4", "--items", "1", "--tasks", "arithmetic", "--offline"]
TYPED = ["verify", "-m", STORIES, "--config", "w16a16-k8v8+pc32", "--budget", "2GB", *SHAPE]
FIELDS = {
    "schema", "verified", "verdict", "wrong", "model", "fingerprint", "config", "engine",
    "context", "output", "batch", "random_weights", "device", "gpu", "budget", "outcome", "term",
    "cap", "terms", "peak_phase", "tasks", "retention", "corrected", "rows_written", "execution",
    "notes",
}  # fmt: skip
TERM_FIELDS = {
    "name", "unit", "predicted", "low", "high", "measured", "difference", "inside", "side", "note",
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "home"
    monkeypatch.setenv("KVPARETO_HOME", str(found))
    return found


@pytest.fixture
def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "plan.json"
    asked = ["plan", "-m", STORIES, "--budget", "2GB", "--context", "64", "--output", "8"]
    assert run([*asked, "--save", str(path), "--json"]) == 0
    capsys.readouterr()
    return path


def verify(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = run([*arguments, "--device", "cpu", "--json"])
    return code, json.loads(capsys.readouterr().out)


# --- receipts -------------------------------------------------------------------------------------


def test_a_plan_is_verified(plan: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    saved = tmp_path / "receipt.json"
    arguments = ["verify", "--plan", str(plan), "-m", STORIES, "--save", str(saved), "--quick"]
    code, found = verify(capsys, *arguments)
    assert code == 0
    assert found["verified"]
    assert found["wrong"] == []
    assert found["corrected"] is None
    assert found.keys() == FIELDS
    assert {frozenset(term) for term in found["terms"]} == {frozenset(TERM_FIELDS)}
    names = [term["name"] for term in found["terms"]]
    assert names == [
        "weights", "kv", "activation", "overhead", "total", "allocated_resident",
        "allocated_peak", "ttft", "tpot", "tpot_p95",
    ]  # fmt: skip
    promised = json.loads(plan.read_text())["recommended"]
    by_name = {term["name"]: term for term in found["terms"]}
    for name in ("weights", "kv"):
        assert by_name[name]["measured"] == promised["memory"][name] == by_name[name]["predicted"]
    assert by_name["activation"]["inside"] is None
    assert found["config"] == promised["config"]
    assert json.loads(saved.read_text()) == found
    Execution.model_validate(found["execution"])


def test_a_configuration_is_verified_and_becomes_rows(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = verify(capsys, *TYPED)
    assert code == 0
    (task,) = found["tasks"]
    assert task["task"] == "arithmetic"
    assert task["reference"] == 0.0  # this model cannot calculate
    assert task["inside"] is None
    assert "scores 0.00" in task["note"]
    rows = read_records(calibrations.folder_of(SPEC) / ROWS)
    assert [(r.task, r.config) for r in rows] == [
        ("execution", "w16a16-k8v8+pc32"),
        ("arithmetic", "w16a16-k16v16+pc32"),
    ]
    assert found["rows_written"] == len(rows)
    assert rows[0].memory is not None
    assert rows[0].memory.kv == found["terms"][1]["measured"]
    assert rows[0].retention is None
    assert rows[0].details["budget"] == 2 * GB
    # a second time: the unquantized scores are there already
    code, found = verify(capsys, *TYPED)
    assert (code, found["rows_written"]) == (0, 1)
    assert found["tasks"][0]["reference_from"] == "calibration rows"


def test_random_weights_claim_no_accuracy(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = verify(capsys, *TYPED, "--random-weights")
    assert code == 0
    assert found["tasks"] == []
    assert found["retention"]["measured"] is None
    assert any("accuracy is not claimed" in note for note in found["notes"])
    (row,) = read_records(calibrations.folder_of(SPEC) / ROWS)
    assert row.details["random_weights"] == 1.0
    assert row.retention is None
    assert calibrations.find(SPEC) is None  # nothing was fitted


def test_a_budget_that_does_not_hold_it_is_said_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [*TYPED[:5], "--budget", "300MB", *SHAPE]
    code, found = verify(capsys, *arguments)
    assert code == 1
    assert not found["verified"]
    assert found["term"] == "weights"
    assert found["wrong"][0].startswith("memory ran out while the weights were loaded")
    assert not found["corrected"]["fits"]
    assert run([*arguments, "--device", "cpu"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].startswith("not verified")
    assert lines[6] == "Wrong"


def test_a_sweep_verifies_points_of_the_frontier(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(plan.read_text())
    point = document["frontier"][0]
    document["frontier"] = [point, predicted("w16a16-k8v8"), predicted("w16a16-k4v4")]
    plan.write_text(json.dumps(document))
    arguments = ["verify", "--plan", str(plan), "-m", STORIES, "--sweep", "2", "--random-weights"]
    code, found = verify(capsys, *arguments)
    assert code == 0
    assert [one["config"] for one in found["receipts"]] == [point["config"], "w16a16-k4v4"]
    assert found["verdict"] == "2 of 2 verified"
    assert run([*arguments, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 verified"


def predicted(config: str) -> dict[str, Any]:
    request = Request(SPEC, Workload(64, 8), Engine.KVPARETO, GB)
    return predict(request, Configuration.parse(config), None).model_dump()


# --- judging --------------------------------------------------------------------------------------

LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
H200 = find_gpu("H200")
ASKED = Request(LLAMA, Workload(8192, 64), Engine.KVPARETO, 10 * GB, H200)
CONFIG = Configuration.parse("w4a16-k4v4-g64+pc1024")
PLANNED = predict(ASKED, CONFIG, H200)
QUESTION = Question("x", ASKED, CONFIG, PLANNED, H200.name)


def measured(**changes: Any) -> Execution:
    """A run of a GPU in which everything was as planned, but for `changes`."""
    memory = PLANNED.memory
    values: dict[str, Any] = {
        "model": LLAMA.name, "fingerprint": "x", "config": str(CONFIG), "engine": "kvpareto",
        "device": "cuda", "context": 8192, "output": 64, "batch": 1, "random_weights": True,
        "outcome": "ok", "budget": 10 * GB, "weights": memory.weights, "kv": memory.kv,
        "allocated_resident": memory.allocated_resident, "allocated_peak": memory.allocated_peak,
        "peaks": {"load": memory.weights, "prefill": memory.allocated_peak, "decode": 0},
        "peak_phase": "prefill",
        "workspace": memory.allocated_peak - memory.weights - memory.kv - memory.activation,
        "device_used": memory.total, "ttft_s": PLANNED.ttft_s, "tpot_s": PLANNED.tpot_s,
        "tpot_p95_s": 0.01, "context_bytes": 552_402_944, "warmup": "full",
        "environment": ENVIRONMENT, "started": "s", "ended": "e",
    }  # fmt: skip
    return Execution.model_validate(values | changes)


def test_what_was_promised_is_inside() -> None:
    found = measured()
    terms = memory_terms(PLANNED, found)
    assert [term.side for term in terms] == ["inside"] * 7
    assert [term.measured for term in terms[:5]] == [
        PLANNED.memory.weights,
        PLANNED.memory.kv,
        PLANNED.memory.activation,
        PLANNED.memory.overhead,
        PLANNED.memory.total,
    ]
    assert [term.side for term in latency_terms(PLANNED, found, True, True)] == [
        "inside", "inside", None,
    ]  # fmt: skip
    assert receipt(QUESTION, found, terms, [], None, 0)["verified"]


def test_the_terms_sum_to_the_total() -> None:
    found = measured(device_used=PLANNED.memory.total + 12345, workspace=7)
    by_name = {term.name: term.measured or 0 for term in memory_terms(PLANNED, found)}
    parts = ("weights", "kv", "activation", "overhead")
    assert sum(by_name[name] for name in parts) == by_name["total"]


@pytest.mark.parametrize(
    ("changes", "name", "side", "verified"),
    [
        ({"kv": PLANNED.memory.kv + 1}, "kv", "worse", False),
        ({"weights": PLANNED.memory.weights - 1}, "weights", "better", True),
        ({"device_used": PLANNED.memory.total_high + 1}, "total", "worse", False),
        ({"device_used": PLANNED.memory.total_low - 1}, "total", "better", True),
        ({"ttft_s": 100.0}, "ttft", "worse", False),
        ({"tpot_s": 1e-6}, "tpot", "better", True),
        (
            {"allocated_resident": int(1.01 * PLANNED.memory.allocated_resident)},
            "allocated_resident",
            "worse",
            False,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_outside_is_said_first(
    changes: dict[str, Any], name: str, side: str, verified: bool
) -> None:
    found = measured(**changes)
    terms = [*memory_terms(PLANNED, found), *latency_terms(PLANNED, found, True, True)]
    assert {t.name: t.side for t in terms}[name] == side
    document = receipt(QUESTION, found, terms, [], None, 0)
    assert document["verified"] is verified
    assert document["wrong"]
    assert "than predicted, outside the interval" in document["wrong"][0]


def test_seconds_are_judged_on_a_known_gpu_only() -> None:
    found = measured()
    for known, same in ((False, False), (True, False)):
        terms = latency_terms(PLANNED, found, known, same)
        assert [term.side for term in terms] == [None, None, None]
        assert all(term.note for term in terms)


def test_retention_is_inside_where_the_intervals_meet() -> None:
    level, kind = PLANNED.accuracy.level, PLANNED.accuracy.tasks["retrieval"]
    assert level == 0.9
    reference = Score.of([1.0] * 40)
    for wrong, side in ((0, "inside"), (20, "worse")):
        score = Score.of([0.0] * wrong + [1.0] * (40 - wrong))
        scored = compare("needle", score, (reference, "rows"), "")
        document = scored.document(PLANNED)
        assert document["side"] == side
        assert document["predicted_low"] == kind.low
        assert document["retention"] == 1 - wrong / 40
        assert document["retention_sd"] >= 1 / 42
    assert compare("needle", reference, None, "it does not fit").side(PLANNED) is None
    lost = receipt(QUESTION, measured(), [], [scored], None, 0)
    assert lost["wrong"] == [
        f"needle keeps 50.0 % of its score, predicted were {100 * kind.low:.1f} % to "
        f"{100 * kind.high:.1f} %"
    ]
    assert not lost["verified"]


def total(measured: float | None, side: Any) -> list[Term]:
    return [Term("total", "bytes", 9 * GB, 8 * GB, 10 * GB, measured, side)]


def test_the_corrected_plan_leaves_room_for_what_was_measured() -> None:
    assert correction(ASKED, CONFIG, total(9 * GB, "inside"), True, False) is None
    found = correction(ASKED, CONFIG, total(10.5 * GB, "worse"), True, False)
    assert found is not None
    assert found["margin"] == int(1.5 * GB)
    assert found["budget"] == ASKED.budget - int(1.5 * GB)
    assert found["recommended"]["memory"]["total_high"] <= found["budget"]
    unknown = correction(ASKED, CONFIG, total(None, None), False, False)
    assert unknown is not None
    assert unknown["margin"] == int(MARGIN * ASKED.budget)
    lost = correction(ASKED, CONFIG, total(9 * GB, "inside"), True, True)
    assert lost is not None
    assert lost["margin"] == 0


# --- plan files and other mistakes ----------------------------------------------------------------


def damage(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        place: Any = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (damage("schema", value=2), "is not a plan: schema"),
        (damage("recommended", value=None), "is not a plan: recommended"),
        (
            damage("recommended", "memory", "kv", value="much"),
            "is not a plan: recommended.memory.kv",
        ),
        (damage("recommended", "config", value="w5a16-k3v9"), "w5 is not"),
        (damage("recommended", "accuracy", "low", value=float("nan")), "is not a plan"),
        (damage("budget", value=-1), "is not a plan: budget"),
        (damage("engine", value="llama"), "no engine is called 'llama'"),
        (damage("parameters", value=7), "the plan was made for"),
        (damage("fingerprint", value="0" * 16), "the plan was made for"),
        (damage("recommended", "memory", "weights", value=7), "the plan was made for"),
        (damage("objective", value="beauty"), "unknown objective"),
    ],
    ids=lambda value: value[-24:] if isinstance(value, str) else "",
)
def test_a_damaged_plan_is_one_line(
    change: Callable[[dict[str, Any]], None],
    says: str,
    plan: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = json.loads(plan.read_text())
    change(document)
    plan.write_text(json.dumps(document))
    fails(capsys, ["--plan", str(plan), "-m", STORIES], 2, says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ('{"schema": 1, "mod', "is not JSON"),
        ("[]", "not an object"),
        ('{"schema": 1, "max_context": []}', "answer of --max-context"),
        ("{}", "is not a plan: schema"),
    ],
    ids=["empty", "torn", "list", "longest", "nothing"],
)
def test_what_is_no_plan_is_one_line(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    fails(capsys, ["--plan", str(path)], 2, says)


def test_a_plan_of_a_model_that_is_elsewhere_asks_for_it(
    plan: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(capsys, ["--plan", str(plan), "--offline"], 2, "the plan's model is not here")
    assert from_plan(plan, STORIES, True).config.quantizes_kv is False


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "nothing to verify"),
        (["-m", STORIES], 2, "no --config --budget"),
        (["--plan", "plan.json", "--budget", "3GB"], 2, "--plan says what to run"),
        (["--plan", "no-such-plan.json"], 2, "no-such-plan.json"),
        (["-m", STORIES, "--config", "w9", "--budget", "2GB"], 2, "w9"),
        (["-m", STORIES, "--config", "w16a16-k4v4", "--budget", "lots"], 2, "not a memory size"),
        ([*TYPED[1:], "--items", "0"], 2, "--items 0 verifies nothing"),
        ([*TYPED[1:], "--sweep", "2"], 2, "--sweep needs the frontier"),
        ([*TYPED[1:], "--device", "tpu"], 2, "no device is called 'tpu'"),
        ([*TYPED[1:], "--tasks", "juggling"], 2, "no task is called 'juggling'"),
        ([*TYPED[1:], "--engine", "transformers"], 2, "cannot be run"),
        ([*TYPED[1:], "--device", "cuda"], 3, "no CUDA GPU"),
        (
            ["-m", LLAMA.name, "--config", "w16a16-k4v4", "--budget", "9GB", "--device", "cpu"],
            3,
            "too many to verify on a CPU",
        ),
        (
            ["-m", "deepseek-ai/DeepSeek-V3", "--config", "w16a16-k4v4", "--budget", "9GB"],
            2,
            "cannot run deepseek-ai/DeepSeek-V3",
        ),
    ],
    ids=lambda value: " ".join(value)[-32:] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_a_hint(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    fails(capsys, arguments, code, says)


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str) -> None:
    given = arguments if "--device" in arguments else [*arguments, "--device", "cpu"]
    assert run(["verify", *given]) == code
    out, err = capsys.readouterr()
    assert out == ""
    error, hint = err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert says in error
    assert hint.startswith("hint: ")
    assert "Traceback" not in err


def test_without_the_runtime_it_names_the_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert run(TYPED) == 3
    assert 'pip install "kvpareto[runtime]"' in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Forward, "__call__", interrupt)
    assert run([*TYPED, "--device", "cpu"]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("error: interrupted")


def test_a_profile_that_is_being_written_is_not_written_by_two(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from kvpareto.calibration.records import RecordFile

    with RecordFile(calibrations.folder_of(SPEC)):
        fails(capsys, TYPED[1:], 2, "is being calibrated by process")


def test_answers_that_do_not_fit_the_cap_leave_the_run_standing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(verification.Examiner, "score", full)
    code, found = verify(capsys, *TYPED)
    assert code == 0
    assert found["tasks"] == []
