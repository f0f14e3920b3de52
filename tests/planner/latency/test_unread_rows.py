"""What a prompt's pass leaves out of the last layer, counted by hand and in seconds."""

from dataclasses import replace

import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency.efficiency import shipped
from kvpareto.planner.latency.job import ConfigurationAxes, job_of
from kvpareto.planner.latency.roofline import seconds
from kvpareto.planner.latency.unread_rows import UnreadRows, unread_rows
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.workload import Workload

H200 = find_gpu("H200")
LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
MOE = load_model("Qwen/Qwen3-30B-A3B", offline=True)
NEMOTRON = load_model("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", offline=True)


def ttft(spec: ModelSpec, workload: Workload, chunk: int, engine=KVPARETO, **changed) -> float:  # type: ignore[no-untyped-def]
    config = Configuration.parse(f"w16a16-k8v8-g64+pc{chunk}")
    axes = ConfigurationAxes.of(config, kv_bytes(spec, config, workload, KVPARETO).total)
    job = replace(job_of(spec, workload, axes), **changed)
    return float(seconds(job, H200, shipped(engine)).ttft.item())


def test_a_llama_s_by_hand() -> None:
    found = unread_rows(LLAMA)
    # queries, output projection, gate, up and down
    assert found.linear == 2 * 4096 * 4096 + 3 * 4096 * 14_336
    assert found.expert == 0
    # all but the first norm and the keys' RoPE
    assert found.moved_bytes == (8 + 6) * 4096 + 4 * 32 * 128 + 4 * 4096 + 8 * 14_336
    assert found.mixer == LLAMA.layers[-1].mixers[0]


def test_a_mixture_s_experts_by_hand() -> None:
    found = unread_rows(MOE)
    assert found.linear == 2 * 2048 * 32 * 128 + 128 * 2048  # and its router
    assert found.expert == 128 * 3 * 2048 * 768


def test_a_last_layer_that_runs_whole_spares_nothing() -> None:
    assert unread_rows(NEMOTRON) == UnreadRows()  # it ends with a feed-forward
    one, two = (replace(LLAMA, layers=LLAMA.layers[:n]) for n in (1, 2))
    assert unread_rows(one) == UnreadRows()
    assert unread_rows(two) == unread_rows(LLAMA)


@pytest.mark.parametrize(
    ("spec", "batch", "least"), [(LLAMA, 1, 0.8), (LLAMA, 16, 0.8), (MOE, 1, 0.6)]
)
def test_a_prompt_is_shorter_by_about_a_layer(spec: ModelSpec, batch: int, least: float) -> None:
    work, layers = Workload(16_000, 16, batch=batch), len(spec.layers)
    now, before = ttft(spec, work, 8192), ttft(spec, work, 8192, last_row_alone=0.0)
    assert before * (1 - 1 / layers) < now < before * (1 - least / layers)


def test_few_rows_and_all_rows_of_logits_take_what_they_took() -> None:
    for work in (Workload(64, 16), Workload(4096, 16, full_logits=True)):
        assert ttft(LLAMA, work, 8192) == ttft(LLAMA, work, 8192, last_row_alone=0.0)
    assert ttft(LLAMA, Workload(65, 16), 8192) < ttft(
        LLAMA, Workload(65, 16), 8192, last_row_alone=0.0
    )


def test_transformers_runs_the_last_layer_whole() -> None:
    work = Workload(16_000, 16)
    whole = ttft(LLAMA, work, 8192, TRANSFORMERS, last_row_alone=0.0)
    assert ttft(LLAMA, work, 8192, TRANSFORMERS) == whole
