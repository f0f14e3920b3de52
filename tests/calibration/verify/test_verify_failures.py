"""Every way for a run to fail: out of memory in each phase, a crash, a refusal, Ctrl-C.

Each is an outcome that names its term and leaves nothing behind, but for Ctrl-C.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kvpareto.calibration.execution import run_record as execution_record
from kvpareto.calibration.execution.loaded_model import OpenModel, open_model
from kvpareto.calibration.execution.run import execute, load_failure
from kvpareto.calibration.execution.run_record import RunRequest, Warmup
from kvpareto.calibration.records.record_file import now
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.estimate import estimate
from kvpareto.runtime.cache.layer_state import LayerState
from kvpareto.runtime.forward import Forward
from tests.support.execution_runs import CONFIG, SPEC, STORIES, WORK
from tests.support.execution_runs import opened as opened


def out_of_memory(*args: object, **kwargs: object) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def when(tokens: int, after: int, error: Exception) -> Callable[..., Any]:
    """Forward.__call__ that raises at the pass over `tokens` tokens after `after` of them."""
    plain, seen = Forward.__call__, [0]

    def call(self: Forward, ids: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] == tokens:
            seen[0] += 1
            if seen[0] > after:
                raise error
        return plain(self, ids)

    return call


OOM = torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("target", "name", "fake", "phase", "term", "says"),
    [
        (LayerState, "allocate", staticmethod(out_of_memory), "cache", "kv", "the KV cache of 70"),
        (Forward, "__call__", when(16, 2, OOM), "prefill", "activation", "chunk of 16 tokens"),
        (Forward, "__call__", when(1, 3, OOM), "decode", "activation", "CUDA out of memory"),
        (
            Forward,
            "__call__",
            when(16, 1, RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")),
            "prefill",
            "overhead",
            "CUBLAS_STATUS_ALLOC_FAILED",
        ),
    ],
    ids=["cache", "chunk", "decode", "library"],
)
def test_memory_that_runs_out_is_an_outcome_that_names_its_term(
    target: Any,
    name: str,
    fake: Any,
    phase: str,
    term: str,
    says: str,
    opened: OpenModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(target, name, fake)
        found = execute(opened, CONFIG, WORK, warmup=Warmup.NONE)
    assert (found.outcome, found.phase, found.term) == ("out_of_memory", phase, term)
    assert says in (found.reason or "")
    assert execute(opened, CONFIG, WORK).outcome == "ok"  # nothing was left behind


def test_weights_that_do_not_fit_are_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", out_of_memory)
    asked = RunRequest(SPEC, CONFIG, WORK, KVPARETO, "cpu", False, None, Warmup.FULL)
    with pytest.raises(NothingFits) as raised, open_model(STORIES, 16, device="cpu"):
        pass
    found = load_failure(raised.value, asked, now())
    assert (found.outcome, found.phase, found.term) == ("out_of_memory", "load", "weights")
    assert "the weights of stories260K-hf at 16 bits do not fit" in (found.reason or "")


@pytest.mark.parametrize(
    ("budget", "phase", "term"),
    [(0, "load", "weights"), (1, "cache", "kv"), (None, None, None)],
    ids=["weights", "cache", "enough"],
)
def test_a_cpu_is_held_to_tensors_and_the_planners_rest(
    budget: int | None, phase: str | None, term: str | None, opened: OpenModel
) -> None:
    planned = estimate(SPEC, CONFIG, WORK, KVPARETO, None)
    rest = planned.activation
    size = planned.total if budget is None else rest + budget * (planned.weights + planned.kv - 1)
    found = execute(opened, CONFIG, WORK, budget=size)
    assert (found.outcome == "ok") is (budget is None)
    assert (found.phase, found.term) == (phase, term)


def test_a_crash_and_a_refusal_are_outcomes(
    opened: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = execute(opened, Configuration.parse("w4a16-k4v4"), WORK)
    assert refused.outcome == "refused"
    assert "16 bits" in (refused.reason or "")
    assert execute(opened, CONFIG, WORK, engine=TRANSFORMERS).outcome == "refused"
    monkeypatch.setattr(Forward, "__call__", when(16, 0, ValueError("a bug\nof two lines")))
    crashed = execute(opened, CONFIG, WORK)
    assert (crashed.outcome, crashed.phase) == ("crashed", "prefill")
    assert crashed.reason == "ValueError: a bug of two lines"


def test_ctrl_c_is_not_an_outcome(opened: OpenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Forward, "__call__", when(16, 0, KeyboardInterrupt()))  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            execute(opened, CONFIG, WORK)
    assert execute(opened, CONFIG, WORK).outcome == "ok"


def test_what_is_no_model_is_bad_input() -> None:
    asked = RunRequest(SPEC, CONFIG, WORK, KVPARETO, "cpu", False, None, Warmup.FULL)
    name = "no/such-model-here"
    with (
        pytest.raises(BadInput, match=name) as raised,
        open_model(name, 16, device="cpu", offline=True),
    ):
        pass
    with pytest.raises(BadInput) as again:
        load_failure(raised.value, asked, now())
    assert again.value is raised.value


@pytest.mark.parametrize(
    ("error", "outside"),
    [
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cudaErrorMemoryAllocation"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
    ids=["driver", "name", "access", "value"],
)
def test_errors_outside_the_allocator(error: Exception, outside: bool) -> None:
    assert execution_record.is_outside_allocator(error) is outside
