"""A configuration run for real: terms, phases, seconds, and what a GPU's numbers add up to.

What only a GPU has is played by FakeGPU; the passes are real, on the CPU.
"""

import pytest

from kvpareto.calibration.execution.loaded_model import OpenModel
from kvpareto.calibration.execution.memory_cap import MARGIN
from kvpareto.calibration.execution.run import execute
from kvpareto.calibration.execution.run_record import Execution, Warmup
from kvpareto.calibration.execution.timing import prompt, warm_tokens
from kvpareto.planner.engine import Engine
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.engines.transformers_eager import TRANSFORMERS_EAGER
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.workload import Workload
from tests.support.execution_runs import CONFIG, SPEC, WORK
from tests.support.execution_runs import opened as opened
from tests.support.fake_gpu import MB, FakeGPU, on_gpu
from tests.support.tiny_configs import CONFIGS


def test_terms_are_the_planners_to_the_byte(opened: OpenModel) -> None:
    found = execute(opened, CONFIG, WORK)
    planned = estimate(SPEC, CONFIG, WORK, KVPARETO, None)
    assert found.outcome == "ok"
    assert (found.weights, found.kv) == (planned.weights, planned.kv)
    assert found.counted == planned.total - planned.overhead  # there is no GPU to have a context
    assert found.steps == WORK.output - 1
    assert (found.ttft_s or 0) > 0 < (found.tpot_s or 0) <= (found.tpot_p95_s or 0)
    assert Execution.model_validate_json(found.model_dump_json(by_alias=True)) == found


@pytest.mark.parametrize("text", ["w16a16-k16v16", "w16a16-k16v16+pc16"])
@pytest.mark.parametrize("engine", [TRANSFORMERS, TRANSFORMERS_EAGER])
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


@pytest.mark.parametrize("rows", [90, 97])
def test_prompts_have_no_token_that_a_table_of_embeddings_lacks(rows: int) -> None:
    """Gemma 3n's embeddings for each layer hold fewer tokens than its head: a GPU reads beyond
    the table for the others and ends the process."""
    content = CONFIGS["gemma3n_text"] | {"vocab_size": 97, "vocab_size_per_layer_input": rows}
    ids = prompt(read_model(content, "tables"), Workload(4096, 1))
    assert int(ids.max()) == rows - 1
