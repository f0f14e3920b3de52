"""Which quantized checkpoints servers take; every refusal says what can be done, by commands that
work."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kvpareto import api
from kvpareto.planner.errors import BadInput
from kvpareto.planner.load_model import load_model

LLAMA8: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
OF_NO_MODEL = LLAMA8 | {"intermediate_size": 13312}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
AUTO_ROUND = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}
HQQ = {"weight_quant_params": {"nbits": 4, "group_size": 64}}
REFUSED = {
    "eetq": {"quant_method": "eetq"},
    "bitnet": {"quant_method": "bitnet"},
    "hqq": {"quant_method": "hqq", "quant_config": HQQ},
    "mlx": {"bits": 8, "group_size": 64},
    "fbgemm in sglang": {"quant_method": "fbgemm_fp8"},
    "3 bits": GPTQ | {"bits": 3},
    "zeros": GPTQ | {"sym": False},
    "no sym": GPTQ | {"sym": None},
    "groups of 256": GPTQ | {"group_size": 256},
    "marlin": GPTQ | {"checkpoint_format": "marlin"},
    "auto-round of 2": {"quant_method": "auto-round", "bits": 2, "group_size": 64, "sym": True},
    "aqlm": {"quant_method": "aqlm"},
    "torchao": {"quant_method": "torchao"},
    "unheard of": {"quant_method": "unheard_of"},
    "no method": {"version": 1},
    "5 bits": GPTQ | {"bits": 5},
    "awq of 8": {"quant_method": "awq", "bits": 8},
    "modules apart": GPTQ | {"dynamic": {"+:.*": {"bits": 8}}},
    "modelopt": {"quant_algo": "NVFP9"},
    "neither": {"quant_method": "bitsandbytes"},
}
PLACE = {"gpu": "H100", "context": "4k", "offline": True}
GENERAL = "copy of its config.json without quantization_config"


def refusal(model: Path, engine: str) -> str:
    with pytest.raises(BadInput) as caught:
        api.plan(str(model), engine=engine, **PLACE)
    return caught.value.hint


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"quant_method": "eetq"}, "no checkpoints of eetq"),
        ({"quant_method": "bitnet"}, "no checkpoints of bitnet"),
        ({"quant_method": "hqq", "quant_config": HQQ}, "no checkpoints of hqq"),
        ({"bits": 8, "group_size": 64}, "no checkpoints of mlx"),
        (GPTQ | {"bits": 3}, "4 and 8 bits, not of 3"),
        (GPTQ, None),
        (GPTQ | {"bits": 8, "desc_act": True, "group_size": -1}, None),
        (GPTQ | {"sym": False}, "sym is false"),
        (GPTQ | {"bits": 8, "sym": False}, "sym is false"),
        (GPTQ | {"group_size": 256}, "not of 256"),
        (GPTQ | {"sym": None}, "asks a GPTQ checkpoint for sym,"),
        (GPTQ | {"desc_act": None}, "for desc_act,"),
        (GPTQ | {"checkpoint_format": "gptq_v2"}, None),
        (GPTQ | {"checkpoint_format": "marlin"}, "packed already"),
        (GPTQ | {"dynamic": {"-:.*": {}}}, None),
        (AUTO_ROUND, None),
        (AUTO_ROUND | {"sym": False}, "sym is false"),
        (AUTO_ROUND | {"sym": False, "packing_format": "auto_round:auto_awq"}, None),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_server_takes_the_checkpoints_that_its_release_loads(
    engine: str, section: dict[str, Any], says: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA8 | {"quantization_config": section}))
    if says is None:
        assert api.plan(str(tmp_path), engine=engine, **PLACE)["recommended"]["serving"]["starts"]
        return
    with pytest.raises(BadInput, match=says) as caught:
        api.plan(str(tmp_path), engine=engine, **PLACE)
    assert caught.value.hint
    bits = {"eetq": 8, "bitnet": 2}.get(section.get("quant_method", ""), section.get("bits", 4))
    with pytest.raises(BadInput, match=says):
        api.estimate(str(tmp_path), f"w{bits}a16-k16v16+pc2048", engine=engine, **PLACE)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_each_command_of_a_hint_plans(engine: str, name: str, tmp_path: Path) -> None:
    if engine == "vllm" and name.endswith("sglang"):
        return
    config = LLAMA8 | {"quantization_config": REFUSED[name]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    hint = refusal(tmp_path, engine)
    engines, models = re.findall(r"--engine ([\w.]+)", hint), re.findall(r"-m (\S+)", hint)
    assert engines or models
    for other in engines:
        assert api.plan(str(tmp_path), engine=other, **PLACE)["fits"], hint
    for model in models:
        assert api.plan(model, engine=engine, **PLACE)["fits"], hint
        shape = load_model(model, offline=True)
        assert shape.parameters == 8_030_261_248


def test_the_original_is_named_by_the_checkpoints_name(tmp_path: Path) -> None:
    folder = tmp_path / "Meta-Llama-3.1-8B-Instruct-GPTQ-Int4"
    folder.mkdir()
    config = LLAMA8 | {"quantization_config": REFUSED["zeros"]}
    (folder / "config.json").write_text(json.dumps(config))
    assert "-m meta-llama/Meta-Llama-3.1-8B-Instruct plans the original" in refusal(folder, "vllm")
    other = folder.rename(tmp_path / "Some-8B-GPTQ")
    assert "a model of its shape" in refusal(other, "vllm")


@pytest.mark.parametrize("name", ["zeros", "aqlm"])
def test_a_shape_that_no_bundled_model_has_is_its_own_original(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(OF_NO_MODEL | {"quantization_config": REFUSED[name]}))
    assert GENERAL in refusal(tmp_path, "vllm")
    file.write_text(json.dumps(OF_NO_MODEL))
    assert api.plan(str(tmp_path), engine="vllm", **PLACE)["fits"]


def test_a_checkpoint_of_too_few_bits_names_what_keeps_more(tmp_path: Path) -> None:
    section = REFUSED["auto-round of 2"]
    (tmp_path / "config.json").write_text(json.dumps(LLAMA8 | {"quantization_config": section}))
    with pytest.raises(Exception, match="half of the score") as caught:
        api.plan(str(tmp_path), **PLACE)
    assert "-m meta-llama/Llama-3.1-8B-Instruct" in caught.value.hint
