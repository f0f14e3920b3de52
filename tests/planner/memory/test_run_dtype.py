"""16 means 16: a float32 checkpoint is planned, and run, in 16 bits unless asked otherwise."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from kvpareto.calibration.execution.device import as_loaded
from kvpareto.calibration.execution.loaded_model import open_model
from kvpareto.calibration.verify.cases import from_plan
from kvpareto.cli import run
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.memory.run_dtype import as_run, in_dtype, parse_dtype
from kvpareto.planner.memory.weights import weight_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec, Role
from kvpareto.planner.workload import Workload
from kvpareto.runtime import load
from tests.support.models.tiny_llama import CONFIG
from tests.support.verify_runs import STORIES
from tests.support.verify_runs import home as home
from tests.support.verify_runs import plan as plan

OLMO = {
    "model_type": "olmo2",
    "architectures": ["Olmo2ForCausalLM"],
    "vocab_size": 100_352,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
# embeddings and head; q, k, v, o; gate, up, down; norms of 4 x 4096 a layer and one at the end
PARAMETERS = 2 * 100_352 * 4096 + 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008 + 4 * 4096) + 4096
TOKENS = 2048 + 512
KV_VALUES = 2 * 32 * 32 * 128 * TOKENS
W16 = ["--config", "w16a16-k16v16", "--context", "2k"]


@pytest.fixture
def olmo(tmp_path: Path) -> str:
    path = tmp_path / "olmo.json"
    path.write_text(json.dumps(OLMO))
    return str(path)


def estimate(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(["estimate", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "dtype", "size", "said"),
    [
        ([], "bfloat16", 2, "--dtype float32"),
        (["--gpu", "4090"], "bfloat16", 2, "--dtype float32"),
        (["--gpu", "T4"], "float16", 2, "NVIDIA T4 has no bfloat16"),
        (["--dtype", "float16"], "float16", 2, "as asked"),
        (["--dtype", "bf16"], "bfloat16", 2, "as asked"),
        (["--dtype", "float32"], "float32", 4, "as asked"),
        (["--dtype", "float32", "--gpu", "4090"], "float32", 4, "takes longer"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("engine", ["kvpareto", "transformers"])
def test_a_float32_checkpoint_is_planned_in_16_bits(
    arguments: list[str],
    dtype: str,
    size: int,
    said: str,
    engine: str,
    olmo: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = estimate(capsys, "-m", olmo, *W16, *arguments, "--engine", engine)
    assert found["dtype"] == dtype
    assert found["memory"]["weights"] == size * PARAMETERS
    # kvpareto's own cache holds what it does not quantize in 16 bits, whatever the model is in
    assert found["memory"]["kv"] == (size if engine == "transformers" else 2) * KV_VALUES
    notes = [w for w in found["warnings"] if "the checkpoint is float32" in w]
    assert [said in note for note in notes] == [True]


def test_a_plan_in_float32_is_planned_only(olmo: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "-m", olmo, "--gpu", "4090", "--context", "2k", "--dtype", "fp32", "--json"]
    assert run(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["dtype"], found["runnable"]) == ("float32", False)
    assert any("not float32" in w for w in found["warnings"])


def test_a_bfloat16_checkpoint_runs_in_float16_where_there_is_no_bfloat16() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    for name in ("T4", "V100 16GB", "2080 Ti", "TITAN RTX"):
        found = as_run(spec, None, find_gpu(name))
        assert found.dtype == "float16"
        assert weight_bytes(found, 16).total == weight_bytes(spec, 16).total
        assert "no bfloat16" in found.warnings[-1]
    assert as_run(spec, None, find_gpu("4090")) is spec
    kept = as_run(spec, "bfloat16", find_gpu("T4"))
    assert "does not compute in bfloat16" in kept.warnings[-1]
    half = replace(spec, dtype="float16")
    assert as_run(half, None, find_gpu("T4")) is half
    assert as_run(half) is half


def test_tensors_that_an_architecture_keeps_in_float32_stay() -> None:
    spec = read_model(OLMO, "olmo")
    norm = next(g for g in spec.tensors if g.role is Role.NORM)
    fixed = replace(
        spec, tensors=tuple(replace(g, dtype="float32") if g is norm else g for g in spec.tensors)
    )
    assert weight_bytes(as_run(fixed), 16).total == 2 * PARAMETERS + 2 * norm.parameters


@pytest.mark.parametrize("said", ["float64", "int8", "", "16"])
def test_no_other_dtype_is_run_in(said: str) -> None:
    with pytest.raises(BadInput, match="no dtype"):
        parse_dtype(said)


def _folder(tmp_path: Path, elements: int, dtype: type) -> ModelSpec:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": "float32"}))
    safetensors.numpy.save_file({"all": np.zeros(elements, dtype)}, tmp_path / "model.safetensors")
    return load_model(str(tmp_path))


def test_what_files_hold_beyond_the_config_is_cast_too(tmp_path: Path) -> None:
    elements = read_model({**CONFIG, "torch_dtype": "float32"}, "tiny").parameters
    spec = as_run(_folder(tmp_path, elements + 500, np.float32))
    assert spec.stored_weight_bytes == 2 * (elements + 500) == weight_bytes(spec, 16).total
    again = in_dtype(spec, "float32")
    assert again.stored_weight_bytes == 4 * (elements + 500)


def test_an_index_of_16_bit_files_is_not_halved(tmp_path: Path) -> None:
    elements = read_model({**CONFIG, "torch_dtype": "float32"}, "tiny").parameters
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": "float32"}))
    index = {"metadata": {"total_size": 2 * elements}, "weight_map": {"x": "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    spec = as_run(load_model(str(tmp_path)))
    assert weight_bytes(spec, 16).total == 2 * elements


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("text", ["w16a16-k16v16", "w16a16-k4v4-g32+res32+sink4", "w16a16-k8v16"])
def test_the_planned_cache_is_the_one_the_runtime_allocates(dtype: str, text: str) -> None:
    config, work = Configuration.parse(text), Workload(64, 8)
    with load(
        STORIES, config, context=64, output=8, device="cpu", dtype=getattr(torch, dtype)
    ) as session:
        assert session.spec.dtype == dtype
        planned = kv_bytes(session.spec, config, work, KVPARETO).total
        assert session.memory().kv == planned
        assert session.memory().weights >= weight_bytes(session.spec, 16).total


def test_verify_runs_a_plan_in_the_dtype_it_was_made_in(plan: Path) -> None:
    assert json.loads(plan.read_text())["dtype"] == "bfloat16"
    spec = from_plan(plan, STORIES, offline=True).spec
    assert spec.dtype == "bfloat16"
    with open_model(STORIES, 16, device="cpu", dtype=spec.dtype) as opened:
        assert opened.model.dtype is torch.bfloat16
        assert opened.spec.dtype == "bfloat16"


def test_calibrate_and_verify_describe_what_the_device_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = load_model(STORIES)
    assert as_loaded(spec, "cpu").dtype == "float32"
    for has, expected in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        assert as_loaded(spec, "cuda").dtype == expected
