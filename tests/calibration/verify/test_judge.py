"""A prediction beside a measurement: inside, better or worse, and the plan that is better then."""

from dataclasses import replace
from typing import Any

import pytest

from kvpareto.calibration.execution.run_record import Execution
from kvpareto.calibration.tasks.scores import Score
from kvpareto.calibration.verify.cases import VerificationCase, predict
from kvpareto.calibration.verify.judge import Term, latency_terms, memory_terms
from kvpareto.calibration.verify.receipt import receipt
from kvpareto.calibration.verify.replan import MARGIN, correction
from kvpareto.calibration.verify.score_tasks import compare
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.search.request import Request
from kvpareto.planner.units import GB
from kvpareto.planner.workload import Workload
from tests.support.record_writer import ENVIRONMENT
from tests.support.verify_runs import home as home

LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
H200 = find_gpu("H200")
ASKED = Request(LLAMA, Workload(8192, 64), KVPARETO, 10 * GB, H200)
CONFIG = Configuration.parse("w4a16-k4v4-g64+pc1024")
PLANNED = predict(ASKED, CONFIG, H200)
QUESTION = VerificationCase("x", ASKED, CONFIG, PLANNED, H200.name)


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


def test_what_a_cpu_does_not_measure_is_not_judged() -> None:
    """The total was printed as `measured +0.0 % inside` where it was the prediction itself."""
    nothing = {"allocated_resident": None, "allocated_peak": None, "device_used": None, "peaks": {}}
    found = measured(device="cpu", counted=PLANNED.memory.total, workspace=None, **nothing)
    terms = {term.name: term for term in memory_terms(PLANNED, found)}
    assert [name for name, term in terms.items() if term.side == "inside"] == ["weights", "kv"]
    for name in ("activation", "overhead", "total", "allocated_resident", "allocated_peak"):
        shown = terms[name].document()
        for field in ("measured", "difference", "inside", "side"):
            assert shown[field] is None, (name, field)
        assert "not measured" in shown["note"]
    for name in ("allocated_resident", "allocated_peak"):  # a card's: more than the CPU's total
        assert terms[name].predicted is None
    seconds = latency_terms(PLANNED, found, False, False)
    answered = receipt(QUESTION, found, [*terms.values(), *seconds], [], None, 0)
    assert answered["verdict"].startswith("verified: the weights and the KV cache are as promised")
    assert answered["verdict"].endswith("the total was not measured")
    assert answered["cap"]["device_used"] is None
    assert answered["cap"]["counted"] == PLANNED.memory.total


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
        document = scored.document(PLANNED.accuracy)
        assert document["side"] == side
        assert document["predicted_low"] == kind.low
        assert document["retention"] == 1 - wrong / 40
        assert document["retention_sd"] >= 1 / 42
    assert compare("needle", reference, None, "it does not fit").side(PLANNED.accuracy) is None
    lost = receipt(QUESTION, measured(), [], [scored], None, 0)
    assert lost["wrong"] == [
        f"needle keeps 50.0 % of its score; predicted: {100 * kind.low:.1f} % to "
        f"{100 * kind.high:.1f} %"
    ]
    assert not lost["verified"]


def test_a_task_that_no_score_could_fail_is_not_judged() -> None:
    """1.645 / (n + 2) is as far as n answers reach: 3 items say nothing of a promise of 30 %."""
    promise = PLANNED.accuracy.model_copy(update={"low": 0.3, "high": 0.9, "tasks": {}})
    for items, side, judged in ((3, None, 0), (4, "inside", 1)):
        score = Score.of([1.0, *[0.0] * (items - 1)])
        scored = compare("needle", score, (Score.of([1.0] * items), "rows"), "")
        assert scored.side(promise) == side
        assert ("not judged" in scored.document(promise)["note"]) is (side is None)
        question = replace(QUESTION, planned=PLANNED.model_copy(update={"accuracy": promise}))
        verdict = receipt(question, measured(device="cpu"), [], [scored], None, 0)["verdict"]
        assert ("retention of 1 task is as promised" in verdict) is bool(judged)
    lost = compare("needle", Score.of([0.0] * 4), (Score.of([1.0] * 4), "rows"), "")
    assert lost.side(promise) == "worse"


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
