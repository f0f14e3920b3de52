"""w4a8: activations of prompts in 8 bits, as plans count them."""

from dataclasses import replace

import pytest

from kvpareto.planner.accuracy.coded_noise import ROWS_BITS, weights_worth
from kvpareto.planner.accuracy.predict import predict as predict_accuracy
from kvpareto.planner.engines import all_engines
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency.predict import predict
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.activation.blocks.ffn import gated
from kvpareto.planner.memory.activation.forward_step import Attend, ForwardStep
from kvpareto.planner.memory.activation.live_tensors import LiveTensors
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.workload import Workload


def spec_of(name: str) -> ModelSpec:
    return load_model(name, offline=True)


LLAMA = spec_of("meta-llama/Llama-3.1-8B-Instruct")
SIXTEEN, EIGHT = (Configuration.parse(f"w4{a}-k4v4-g64+pc8192") for a in ("a16", "a8"))
PROMPT = Workload(16_000, 64)


def test_the_grammar() -> None:
    assert (SIXTEEN.activation_bits, EIGHT.activation_bits) == (16, 8)
    assert str(EIGHT) == "w4a8-k4v4-g64+pc8192"
    assert EIGHT != SIXTEEN


@pytest.mark.parametrize("engine", [e for e in all_engines() if e is not KVPARETO], ids=str)
def test_other_engines_refuse(engine: object) -> None:
    with pytest.raises(BadInput, match="activations in 16 bits"):
        engine.check_formats(Configuration.parse("w4a8-k16v16"))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "model",
    ["Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V2-Lite", "Qwen/Qwen3-Next-80B-A3B-Instruct"],
)
def test_models_with_other_products_are_refused(model: str) -> None:
    with pytest.raises(BadInput, match="plain attention"):
        KVPARETO.activation(spec_of(model), Configuration.parse("w4a8-k8v8"), PROMPT)
    KVPARETO.activation(spec_of(model), Configuration.parse("w4a16-k8v8"), PROMPT)


def test_rows_of_a_gate_by_hand() -> None:
    step = ForwardStep(
        batch=1, new=512, past=0, previous=0, element=2, hidden=1024, attend=Attend.PACKED,
        packed_weights=True, rounded_rows=True,
    )  # fmt: skip
    assert step.rounded(1024) == (512 * 1024, 512 * 4)
    assert step.rounded(1000) == step.rounded(1024)  # stored with zeros behind
    live = LiveTensors()
    out = gated(live, "silu", 256, step)  # narrow: rows are at the peak
    rows = 512 * 1024 + 512 * 4
    assert (out, live.nbytes) == (2 * 512 * 1024, 2 * 512 * 1024)
    assert live.peak == max(
        rows + 2 * 2 * 512 * 256, 2 * 512 * 256 + 512 * 256 + 512 * 4 + 2 * 512 * 1024
    )


def test_few_rows_stay_in_16_bits() -> None:
    def step(new: int) -> ForwardStep:
        return ForwardStep(
            batch=1, new=new, past=0, previous=0, element=2, hidden=1024, rounded_rows=True
        )

    assert step(64).rounded(1024) == (0, 0)
    assert step(65).rounded(1024) == (65 * 1024, 65 * 4)


@pytest.mark.parametrize("gpu", ["H200", "H100"])
def test_prompts_are_faster_and_steps_as_before(gpu: str) -> None:
    card = find_gpu(gpu)
    sixteen, eight = (predict(LLAMA, c, PROMPT, KVPARETO, card) for c in (SIXTEEN, EIGHT))
    assert sixteen is not None
    assert eight is not None
    assert 0.5 * sixteen.ttft_s < eight.ttft_s < 0.9 * sixteen.ttft_s
    assert eight.tpot_s == sixteen.tpot_s


def test_other_cards_and_float16_are_refused() -> None:
    with pytest.raises(BadInput, match="on Hopper"):
        KVPARETO.activation(LLAMA, EIGHT, PROMPT, find_gpu("RTX 4090"))
    KVPARETO.activation(LLAMA, EIGHT, PROMPT, find_gpu("H100"))
    with pytest.raises(BadInput, match="bfloat16"):
        KVPARETO.activation(replace(LLAMA, dtype="float16"), EIGHT, PROMPT)


def test_rows_cost_a_little_accuracy() -> None:
    assert weights_worth(EIGHT) == 4 - ROWS_BITS
    assert weights_worth(SIXTEEN) == 4
    sixteen, eight = (predict_accuracy(LLAMA, c, 16_000) for c in (SIXTEEN, EIGHT))
    assert 0 < sixteen.retention - eight.retention < 0.02
    assert any("activations in 8 bits" in note for note in eight.notes)
