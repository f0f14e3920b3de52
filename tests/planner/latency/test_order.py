"""More work is never predicted to take less time."""

from itertools import pairwise

import numpy as np
import pytest

from kvpareto.calibration.fit.hardware.engine_runs import shipped_runs
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency.interval import profile_of
from kvpareto.planner.latency.job import ConfigurationAxes
from kvpareto.planner.latency.roofline import sweep
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.workload import Workload

SHAPES = {row.model: row.spec for row in shipped_runs()}
BUNDLED = (
    "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-3B-Instruct", "google/gemma-3-4b-it",
    "microsoft/Phi-3.5-mini-instruct", "Qwen/Qwen3-30B-A3B",
)  # fmt: skip
SHAPED = ("glm-4.7-flash", "deepseek-v2-lite", "gpt-oss-20b-16bit", "granite-4.0-micro")
BATCHES = (1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 17, 24, 32, 40, 48, 64, 65, 128)
CASES = [
    (config, context)
    for config in ("w16a16-k16v16", "w8a16-k8v8", "w4a16-k4v4+pc256", "w4a16-k16v16+pc1024")
    for context in (512, 2000, 32_768)
]


def spec_of(name: str) -> ModelSpec:
    return SHAPES.get(name) or load_model(name, offline=True)


@pytest.mark.parametrize("gpu", ["H200", "RTX 4090"])
@pytest.mark.parametrize("name", [*BUNDLED, *SHAPED])
def test_more_sequences_take_no_less_time(name: str, gpu: str) -> None:
    spec, card = spec_of(name), find_gpu(gpu)
    ends = profile_of(KVPARETO, card, spec).ends
    for text, context in CASES:
        config = Configuration.parse(text)
        for end in ends:
            found = []
            for batch in BATCHES:
                workload = Workload(context, 256, batch=batch)
                axes = ConfigurationAxes.of(
                    config, kv_bytes(spec, config, workload, KVPARETO).total
                )
                both = sweep(spec, workload, card, end.prompts, axes, end.steps)
                found.append(np.array([both.ttft.item(), both.tpot.item()]))
            for (batch, fewer), more in pairwise([*zip(BATCHES, found, strict=True)]):
                assert (fewer <= more[1] * (1 + 1e-9)).all(), (text, context, batch, fewer, more)
