"""A quantized checkpoint is planned by its own bits: its word, its bytes, what it loses."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvpareto import api
from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_config, load_model
from kvpareto.planner.memory.weights import available_weight_bits, weight_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec

QWEN8 = "Qwen/Qwen3-8B"


def stored(**section: Any) -> ModelSpec:
    return read_model({**load_config(QWEN8).config, "quantization_config": section}, "own")


def gptq(bits: int) -> ModelSpec:
    return stored(quant_method="gptq", bits=bits, group_size=128)


def hqq(bits: int) -> ModelSpec:
    settings = {"weight_quant_params": {"nbits": bits, "group_size": 64}}
    return stored(quant_method="hqq", quant_config=settings)


@pytest.mark.parametrize(
    ("spec", "bits"),
    [
        pytest.param(gptq(2), 2, id="gptq-2"),
        pytest.param(gptq(3), 3, id="gptq-3"),
        pytest.param(gptq(4), 4, id="gptq-4"),
        pytest.param(gptq(8), 8, id="gptq-8"),
        pytest.param(stored(bits=5, group_size=64), 5, id="mlx-5"),
        pytest.param(stored(bits=6, group_size=64), 6, id="mlx-6"),
        pytest.param(hqq(1), 2, id="hqq-1-has-no-word-of-its-own"),
        pytest.param(stored(quant_method="bitnet"), 2, id="bitnet"),
    ],
)
def test_the_word_has_the_checkpoints_bits(spec: ModelSpec, bits: int) -> None:
    assert available_weight_bits(spec) == (bits,)
    assert weight_bytes(spec, bits).total < weight_bytes(spec, 16).total
    config = Configuration.parse(f"w{bits}a16-k16v16")
    assert str(config) == f"w{bits}a16-k16v16"
    with pytest.raises(BadInput, match="already quantized") as caught:
        weight_bytes(spec, 4 if bits != 4 else 3)
    assert f"w{bits}a16" in caught.value.hint


def test_more_bits_keep_more() -> None:
    specs = gptq(2), gptq(3), gptq(4), stored(bits=5, group_size=64), gptq(8)
    kept = [
        accuracy.predict(
            spec, Configuration(weight_bits=available_weight_bits(spec)[0]), 8192
        ).retention
        for spec in specs
    ]
    assert kept == sorted(kept)
    assert len(set(kept)) == len(kept)


@pytest.mark.parametrize("bits", [6, 5, 3, 2])
def test_a_16_bit_checkpoint_is_not_rounded_to_bits_that_nothing_runs(bits: int) -> None:
    with pytest.raises(BadInput, match="is not quantized") as caught:
        api.estimate(QWEN8, f"w{bits}a16-k8v8", offline=True)
    assert "w8 or w4" in caught.value.hint
    assert bits not in available_weight_bits(load_model(QWEN8))


def test_what_keeps_nothing_is_not_offered_for_a_larger_loss(tmp_path: Path) -> None:
    config = load_config(QWEN8).config | {
        "quantization_config": {"quant_method": "gptq", "bits": 2, "group_size": 128}
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for words in ({}, {"accept_risk": True}, {"max_loss": "100%"}):
        with pytest.raises(NothingFits) as caught:
            api.plan(str(tmp_path), budget="24GB", context="8k", offline=True, **words)
        assert "keep half of the score" in caught.value.message
        assert "--max-loss" not in caught.value.hint
        assert "more bits" in caught.value.hint


def test_checkpoints_of_fewer_than_4_bits_lose_more_than_those_of_4() -> None:
    config = dict(load_config("Qwen/Qwen2.5-7B-Instruct", offline=True).config)
    own = Configuration.parse("w4a16-k16v16")
    kept = {}
    for bits in (2, 3, 4):
        config["quantization_config"] = {"quant_method": "gptq", "bits": bits, "group_size": 128}
        (found,) = accuracy.predict_many(read_model(config, f"of {bits}"), [own], 8192)
        assert any(f"the weights have {bits} bits" in note for note in found.notes) == (bits < 4)
        kept[bits] = found.retention
    assert kept[2] < 0.1 < kept[3] < kept[4] - 0.05
