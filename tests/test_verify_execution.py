"""A configuration run for real: terms, phases, the cap, and every way to run out of memory.

What only a GPU has is played by FakeGPU, which tells the numbers of a script; the passes are real,
on the CPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from kvpareto.calibration import device_memory, execution_record
from kvpareto.calibration.device_memory import MARGIN, Cap, DeviceMemory, allowed_bytes
from kvpareto.calibration.execution import execute, run_configuration
from kvpareto.calibration.execution_record import Execution, Warmup
from kvpareto.calibration.open_model import OpenModel, open_model
from kvpareto.calibration.passes import warm_tokens
from kvpareto.planner.configuration import Configuration
from kvpareto.planner.errors import BadInput
from kvpareto.planner.memory import estimate
from kvpareto.planner.model_source import load_model
from kvpareto.planner.workload import Engine, Workload
from kvpareto.runtime.forward import Forward
from kvpareto.runtime.layer_state import LayerState

STORIES = str(Path(__file__).parent / "data" / "stories260K-hf")
SPEC = load_model(STORIES)
CONFIG = Configuration.parse("w16a16-k4v4+pc16")
WORK = Workload(64, 6)
MB = 10**6


@pytest.fixture(scope="module")
def opened() -> Iterator[OpenModel]:
    with open_model(STORIES, 16, device="cpu") as found:
        yield found


class FakeGPU:
    """DeviceMemory's numbers: what is allocated and reserved in each phase, and a context that
    grows by what a first pass loads."""

    def __init__(self, contexts: tuple[int, ...] = (500 * MB, 520 * MB)) -> None:
        self.contexts = list(contexts)
        self.highs = [(300 * MB, 400 * MB), (250 * MB, 410 * MB), (0, 0)]
        self.calls: list[str] = []
        self.caps: list[int] = []
        self._memory = self

    def context(self) -> int:
        return self.contexts.pop(0) if len(self.contexts) > 1 else self.contexts[0]

    def marks(self) -> tuple[int, int]:
        return self.highs.pop(0)

    def allocated(self) -> int:
        return 200 * MB

    def workspace(self) -> int:
        return 33 * MB

    def wait(self) -> None:
        self.calls.append("wait")

    def settle(self) -> None:
        self.calls.append("settle")

    def start_phase(self) -> None:
        self.calls.append("phase")

    def limit(self, size: int | None) -> None:
        self.caps.append(-1 if size is None else size)

    @contextmanager
    def held_to(self, budget: int | None) -> Iterator[Cap | None]:
        if budget is None:
            yield None
            return
        cap = Cap(self, budget)  # type: ignore[arg-type]
        cap.tighten()
        yield cap
        self.limit(None)


def on_gpu(opened: OpenModel, gpu: FakeGPU) -> OpenModel:
    class OnGPU(OpenModel):
        memory = gpu  # type: ignore[assignment]

    values = {field.name: getattr(opened, field.name) for field in fields(OpenModel)}
    return OnGPU(**(values | {"peak": 100 * MB, "reserved": 120 * MB}))


def test_terms_are_the_planners_to_the_byte(opened: OpenModel) -> None:
    found = execute(opened, CONFIG, WORK)
    planned = estimate(SPEC, CONFIG, WORK, Engine.KVPARETO, None)
    assert found.outcome == "ok"
    assert (found.weights, found.kv) == (planned.weights, planned.kv)
    assert found.counted == planned.total
    assert found.steps == WORK.output - 1
    assert (found.ttft_s or 0) > 0 < (found.tpot_s or 0) <= (found.tpot_p95_s or 0)
    assert Execution.model_validate_json(found.model_dump_json(by_alias=True)) == found


@pytest.mark.parametrize("text", ["w16a16-k16v16", "w16a16-k16v16+pc16"])
@pytest.mark.parametrize("engine", [Engine.TRANSFORMERS, Engine.TRANSFORMERS_EAGER])
def test_transformers_is_run_by_the_same_function(
    opened: OpenModel, engine: Engine, text: str
) -> None:
    before = opened.model.config._attn_implementation
    found = execute(opened, Configuration.parse(text), WORK, engine=engine)
    planned = estimate(SPEC, Configuration.parse(text), WORK, engine, None)
    assert found.outcome == "ok"
    assert (found.weights, found.kv) == (planned.weights, planned.kv)
    assert found.steps == WORK.output
    assert opened.model.config._attn_implementation == before


def test_fewer_tokens_are_decoded_than_the_cache_has_room_for(opened: OpenModel) -> None:
    whole, cut = execute(opened, CONFIG, WORK), execute(opened, CONFIG, WORK, generate=3)
    assert cut.steps == 2
    assert cut.kv == whole.kv


@pytest.mark.parametrize("warmup", list(Warmup))
def test_cold_is_told_where_the_whole_prompt_was_cold(opened: OpenModel, warmup: Warmup) -> None:
    found = execute(opened, CONFIG, Workload(200, 3), warmup=warmup)
    assert found.warmup is warmup
    assert (found.ttft_cold_s == found.ttft_s) is (warmup is Warmup.NONE)


def test_a_short_warm_up_sees_a_capture_and_every_segment() -> None:
    assert warm_tokens(SPEC, CONFIG, 10**6) > 8 * 16
    assert warm_tokens(SPEC, CONFIG, 100) == 100
    assert warm_tokens(SPEC, Configuration(), 10**6) == 2048


# --- a GPU's numbers ------------------------------------------------------------------------------


def test_a_gpus_terms_phases_and_cap(opened: OpenModel) -> None:
    gpu = FakeGPU(contexts=(500 * MB, 510 * MB, 520 * MB, 530 * MB))
    found = execute(on_gpu(opened, gpu), CONFIG, WORK, budget=1000 * MB)
    assert found.outcome == "ok"
    assert found.peaks == {"load": 100 * MB, "prefill": 300 * MB, "decode": 250 * MB}
    assert (found.allocated_peak, found.peak_phase) == (300 * MB, "prefill")
    assert (found.reserved_peak, found.allocated_resident) == (410 * MB, 200 * MB)
    assert (found.context_before, found.context_bytes) == (500 * MB, 530 * MB)
    assert found.device_used == 940 * MB
    assert found.workspace == 33 * MB
    # held once before the model runs, and again when its first pass has loaded what it needs
    assert gpu.caps == [490 * MB - MARGIN, 480 * MB - MARGIN, -1]
    assert found.allowed == 480 * MB - MARGIN
    assert gpu.calls[-1] == "settle"


def test_loading_can_set_the_high_water_mark(opened: OpenModel) -> None:
    gpu = FakeGPU()
    gpu.highs[0] = (90 * MB, 110 * MB)
    gpu.highs[1] = (80 * MB, 110 * MB)
    found = execute(on_gpu(opened, gpu), CONFIG, WORK)
    assert (found.peak_phase, found.allocated_peak) == ("load", 100 * MB)
    assert found.reserved_peak == 120 * MB
    assert found.allowed is None


def test_what_the_driver_counts_beyond_the_budget_is_a_failure(opened: OpenModel) -> None:
    """The allocator kept to its cap, libraries that loaded later did not."""
    found = execute(on_gpu(opened, FakeGPU()), CONFIG, WORK, budget=900 * MB)
    assert (found.outcome, found.term) == ("out_of_memory", "overhead")
    assert "930.00 MB" in (found.reason or "")


def test_the_cap_is_the_budget_less_context_and_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = DeviceMemory.__new__(DeviceMemory)
    memory.device, memory.others = torch.device("cuda", 0), 7 * MB
    shares: list[float] = []
    fakes: dict[str, Callable[..., Any]] = {
        "synchronize": lambda device: None,
        "mem_get_info": lambda device: (60_000 * MB, 80_000 * MB),
        "memory_reserved": lambda device: 19_000 * MB,
        "set_per_process_memory_fraction": lambda share, device: shares.append(share),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    assert memory.used() == 20_000 * MB - 7 * MB
    assert memory.context() == 993 * MB
    with memory.held_to(24_000 * MB) as cap:
        assert cap is not None
        assert cap.allowed == 24_000 * MB - 993 * MB - MARGIN
    assert shares == [cap.allowed / (80_000 * MB), 1.0]
    assert allowed_bytes(100, 200) == 0


def test_expandable_segments_are_asked_for_unless_the_user_asked_for_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    assert device_memory.allocator_settings() is None
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    device_memory.prefer_expandable_segments()
    assert device_memory.allocator_settings() == "max_split_size_mb:64"
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    device_memory.prefer_expandable_segments()
    assert device_memory.allocator_settings() == device_memory.EXPANDABLE
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")


# --- running out of memory ------------------------------------------------------------------------


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
    found = run_configuration(STORIES, CONFIG, WORK, device="cpu")
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
    planned = estimate(SPEC, CONFIG, WORK, Engine.KVPARETO, None)
    rest = planned.activation + planned.overhead
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
    assert execute(opened, CONFIG, WORK, engine=Engine.TRANSFORMERS).outcome == "refused"
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
    with pytest.raises(BadInput):
        run_configuration("no/such-model-here", CONFIG, WORK, device="cpu", offline=True)


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


def test_a_cap_needs_a_numbered_device() -> None:
    """torch takes no fraction of memory for a device without a number."""
    assert device_memory.numbered("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert device_memory.numbered("cuda") == torch.device("cuda", 0)
    assert device_memory.numbered("cuda:1").index == 1
