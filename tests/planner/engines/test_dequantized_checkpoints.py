"""Plans of our runtime for checkpoints that it dequantizes while it loads them."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvpareto import api
from kvpareto.planner.engines import find_engine
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.kvpareto.checkpoints import as_dequantized
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.search.evaluate import evaluate, predict_point
from kvpareto.planner.workload import Workload

WORK = Workload(4096, 64)
LLAMA = {
    "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816, "vocab_size": 32000,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8,
    "dtype": "bfloat16", "max_position_embeddings": 8192,
}  # fmt: skip


def test_gpt_oss_is_planned_at_all_its_bits_and_runs() -> None:
    """21 billion weights: 42 GB in 16 bits, a quarter of that and scales in 4."""
    spec = load_model("openai/gpt-oss-20b", offline=True)
    assert KVPARETO.cannot_run(spec) is None
    table = evaluate(spec, WORK, KVPARETO, None)
    assert table.space.weights == (16, 8, 4)
    whole, eight, four = table.weight_sizes()
    assert 41e9 < whole < 43e9
    assert 21e9 < eight < 23e9
    assert 12e9 < four < 13.5e9
    config = Configuration.parse("w4a16-k8v8-g64+pc1024")
    size = estimate(spec, config, WORK, KVPARETO, None)
    assert size.weights == four
    (note,) = KVPARETO.notes(spec, config, WORK)
    assert note == (
        "the checkpoint's mxfp4 weights are dequantized to 16 bits, then rounded to the nearest of "
        "4 while they are loaded"
    )


def test_what_is_rounded_anew_loses_what_rounding_loses() -> None:
    spec = load_model("openai/gpt-oss-20b", offline=True)
    sixteen, four = (
        predict_point(spec, Configuration.parse(f"w{bits}a16-k16v16"), WORK, KVPARETO, None)
        for bits in (16, 4)
    )
    assert sixteen.accuracy.retention == 1
    assert four.accuracy.retention < 1
    own = find_engine("transformers")
    kept = predict_point(spec, Configuration.parse("w4a16-k16v16"), WORK, own, None)
    assert kept.accuracy.retention == 1  # run as it was released


@pytest.mark.parametrize(
    ("section", "runs"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, True),
        ({"quant_method": "fbgemm_fp8"}, True),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, True),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, False),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, False),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, False),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"targets": ["Linear"],
          "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}}, True),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {
          "a": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 128}}}}, False),
    ],
)  # fmt: skip
def test_which_checkpoints_run(section: dict[str, object], runs: bool) -> None:
    spec = read_model(LLAMA | {"quantization_config": section}, "a model")
    why = KVPARETO.cannot_run(spec)
    if not runs:
        assert why is not None
        assert "does not load checkpoints quantized by" in why
        assert as_dequantized(spec) is spec
        return
    assert why is None
    plain = read_model(LLAMA, "a model")
    for bits in (16, 8, 4):
        config = Configuration.parse(f"w{bits}a16-k8v8-g64+pc512")
        planned = estimate(spec, config, WORK, KVPARETO, None)
        assert planned.total == estimate(plain, config, WORK, KVPARETO, None).total


ALL_LEFT_OUT = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "ignore": ["re:.*"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 3, "type": "int", "strategy": "group", "group_size": 128},
        }
    },
}


@pytest.mark.parametrize("section", [{"quant_method": "mxfp4"}, ALL_LEFT_OUT], ids=["mxfp4", "all"])
@pytest.mark.parametrize("engine", ["vllm", "kvpareto", "llama.cpp"])
def test_a_checkpoint_that_quantizes_nothing_is_one_of_16_bits(
    engine: str, section: dict[str, Any], tmp_path: Path
) -> None:
    """mxfp4 is of experts, which a dense model has not; a list leaves out every module."""
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256}
    heads = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    config = {"model_type": "llama", **sizes, **heads, "max_position_embeddings": 8192}
    found = []
    for name, more in (("plain", {}), ("named", {"quantization_config": section})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config | more))
        model = str(tmp_path / name)
        found.append(api.plan(model, engine=engine, gpu="H100", context="4k", offline=True))
    plain, named = (one["recommended"] for one in found)
    assert plain["config"] == named["config"]
    assert plain["accuracy"]["retention"] == named["accuracy"]["retention"]
    assert plain["memory"]["weights"] == named["memory"]["weights"]
    assert sum("meets no matrix" in note for note in found[1]["warnings"]) == 1
