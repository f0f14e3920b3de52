"""Classes of models: which a model is of, and the interval that its class has."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kvpareto.calibration.fit.hardware.engine_runs import shipped_runs
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.measured import forget, path_of
from kvpareto.planner.latency.interval import NO_RUNS, profile_of
from kvpareto.planner.latency.model_class import CLASSES, UNTRIED, class_of
from kvpareto.planner.latency.predict import predict
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.spec import ModelSpec, RecurrentState
from kvpareto.planner.user_data import ENVIRONMENT
from kvpareto.planner.workload import Workload
from kvpareto.profiles import read

H200 = find_gpu("H200")
THERE = json.loads(read("hardware/latency.json"))["engines"]["kvpareto"]["there"]
LLAMA = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
LATENT = load_model("deepseek-ai/DeepSeek-V2-Lite-Chat", offline=True)
HYBRID = load_model("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", offline=True)
SPARSE = load_model("deepseek-ai/DeepSeek-V3.2", offline=True)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "plain"),
        ("google/gemma-3-4b-it", "plain"),
        ("Qwen/Qwen3-30B-A3B", "mixture"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "mixture"),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", "latent"),
        ("deepseek-ai/DeepSeek-V3", "latent"),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", "recurrent"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "recurrent"),
        ("google/gemma-2-9b-it", "capped"),
        ("deepseek-ai/DeepSeek-V3.2", UNTRIED),
        ("deepseek-ai/DeepSeek-V4-Flash", UNTRIED),
    ],
)
def test_classes_of_models(model: str, expected: str) -> None:
    assert class_of(load_model(model, offline=True)) == expected


def test_recurrent_layers_of_which_some_have_no_time_are_untried() -> None:
    of = next(x for x in HYBRID.layers if isinstance(x.mixers[0], RecurrentState))
    odd = replace(of, mixers=(replace(of.mixers[0], kind="another"),))
    assert class_of(replace(HYBRID, layers=(*HYBRID.layers, odd))) == UNTRIED


def test_every_class_has_rows() -> None:
    assert {class_of(row.spec) for row in shipped_runs()} == set(CLASSES)
    assert set(THERE["classes"]) == set(CLASSES)


def width(spec: ModelSpec, gpu: str = "H200") -> tuple[float, float]:
    """High / low of TTFT and of TPOT."""
    config = Configuration.parse("w4a16-k4v4-g64+pc1024")
    found = predict(spec, config, Workload(16_384, 64), KVPARETO, find_gpu(gpu))
    assert found is not None
    assert found.ttft_low < found.ttft_s < found.ttft_high
    assert found.tpot_low < found.tpot_s < found.tpot_high
    return found.ttft_high / found.ttft_low, found.tpot_high / found.tpot_low


def test_a_class_has_the_interval_of_its_own_errors() -> None:
    for spec, of_class in ((LLAMA, "plain"), (LATENT, "latent"), (HYBRID, "recurrent")):
        ends = THERE["classes"][of_class]
        profile = profile_of(KVPARETO, H200, spec)
        assert NO_RUNS not in profile.kind
        host = profile.coefficients.host_step
        assert profile.high.prompts.host_step == pytest.approx(host * ends["high"]["host"])
        assert profile.high.steps.host_step == pytest.approx(host * ends["steps"]["high"]["host"])
        assert profile.low.prompts.host_step == pytest.approx(host * ends["low"]["host"])
    assert width(HYBRID)[0] > 1.2 * width(LLAMA)[0]


def test_a_class_without_rows_says_so_and_is_the_widest() -> None:
    profile = profile_of(KVPARETO, H200, SPARSE)
    assert profile.kind.endswith(NO_RUNS)
    for name, limit in (("low", min), ("high", max)):
        for steps in (False, True):
            known = [(x["steps"] if steps else x)[name]["card"] for x in THERE["classes"].values()]
            untried = THERE[UNTRIED]["steps"] if steps else THERE[UNTRIED]
            assert untried[name]["card"] == limit([untried[name]["card"], *known])


def test_elsewhere_a_class_is_as_much_wider_as_where_it_was_run() -> None:
    assert width(HYBRID, "4090")[0] > 1.2 * width(LLAMA, "4090")[0]
    assert width(LLAMA, "4090")[0] > 1.5 * width(LLAMA)[0]


def test_runs_of_this_machine_say_nothing_of_other_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose runs are of plain models knows latents as this package does, not better."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    end = {"card": 0.98, "host": 0.98, "plan": 0.0}, {"card": 1.02, "host": 1.02, "plan": 1.0}
    ends = {"low": end[0], "high": end[1]}
    there = {"kind": "calibrated here", "classes": {"plain": ends}} | ends
    entry = {"coefficients": {}, "there": there}
    path = path_of(H200.name)
    path.parent.mkdir()
    path.write_text(
        json.dumps({"schema": 1, "gpu": H200.name, "runs": 9, "engines": {"kvpareto": entry}})
    )
    forget()
    try:
        assert profile_of(KVPARETO, H200, LLAMA).kind == "calibrated here"
        latent = profile_of(KVPARETO, H200, LATENT)
        host, ends = latent.coefficients.host_step, THERE["classes"]["latent"]
        assert latent.high.prompts.host_step == pytest.approx(host * ends["high"]["host"])
        assert width(LLAMA)[0] < 1.1 < width(LATENT)[0]
    finally:
        monkeypatch.delenv(ENVIRONMENT)
        forget()
