"""A CPU is promised no memory that only a GPU has."""

from kvpareto.calibration.verify.cases import predict
from kvpareto.calibration.verify.judge import Term
from kvpareto.calibration.verify.on_cpu import gpu_only_bytes, on_cpu
from kvpareto.calibration.verify.replan import correction
from kvpareto.calibration.verify.typed_cases import typed_cases
from kvpareto.planner.engines import find_engine
from kvpareto.planner.errors import NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.search.request import Request
from kvpareto.planner.workload import Workload

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_total_on_a_cpu_is_that_of_tensors() -> None:
    request = Request(load_model(MODEL), Workload(512, 64, 1), find_engine("kvpareto"), 10**9)
    planned = predict(request, Configuration.parse("w8a16-k8v8+pc256"), None)
    assert planned.memory.overhead > 500_000_000  # a GPU's context, and its libraries
    memory, before = on_cpu(planned).memory, planned.memory
    assert memory.overhead == 0
    assert memory.total == before.weights + before.kv + before.activation
    error = int(0.03 * before.activation)
    assert (memory.total_low, memory.total_high) == (memory.total - error, memory.total + error)
    assert (memory.weights, memory.kv) == (before.weights, before.kv)


def test_a_budget_below_a_gpus_context_is_planned_for_a_cpu() -> None:
    asked = MODEL, None, "300MB", "512", "64", "1", "kvpareto", None, True
    questions, unplanned = typed_cases(*asked, "cpu")
    assert not unplanned
    (question,) = questions
    assert on_cpu(question.planned).memory.total_high <= 300_000_000
    _, refused = typed_cases(*asked, "cuda")
    assert isinstance(refused[0].error, NothingFits)


def test_the_share_of_a_gpu_is_its_context_workspace_and_fixed_slack() -> None:
    # 750 MB of the driver at most and 340 MB of libraries, 32 MiB of cuBLAS, 70 MB held free
    spec = load_model(MODEL)
    assert gpu_only_bytes(spec, find_engine("kvpareto")) == 1_090_000_000 + 2**25 + 70_000_000


def test_another_plan_and_a_refusal_count_what_a_cpu_holds() -> None:
    """Neither says a GPU's context: 300 MB are enough for SmolLM2 on a CPU, and 90 MB are refused
    by what is missing there."""
    config, unknown = Configuration.parse("w16a16-k16v16"), None
    terms = [Term("total", "bytes", 1, 1, 1, unknown, None)]
    asked = Request(load_model(MODEL), Workload(512, 64, 1), find_engine("kvpareto"), 300_000_000)
    again = correction(asked, config, terms, False, False, "cpu")
    assert again is not None
    assert again["fits"]
    memory = again["recommended"]["memory"]
    assert memory["overhead"] == 0
    assert memory["total_high"] <= again["budget"] == 285_000_000
    on_a_gpu = correction(asked, config, terms, False, False, "cuda")
    assert on_a_gpu is not None
    assert not on_a_gpu["fits"]
    _, refused = typed_cases(MODEL, None, "90MB", "512", "64", "1", "kvpareto", None, True, "cpu")
    error = refused[0].error
    needed = error.details["needed_bytes"]
    assert isinstance(needed, int)
    assert 90_000_000 < needed < 400_000_000
    assert error.details["budget"] == 90_000_000
    assert "the budget of 90.00 MB" in error.message
    assert "GB" not in error.message + error.hint
