"""Plans of other engines for models that nobody has measured, and of types that nobody knows."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvpareto.cli import run
from kvpareto.planner.engines import find_engine
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency.predict import predict
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.search.evaluate import evaluate
from kvpareto.planner.workload import Workload

NEW = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 3072,
    "intermediate_size": 9728,
    "num_hidden_layers": 12,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "vocab_size": 99000,
    "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-5,
}
UNKNOWN = NEW | {"architectures": ["ZorgForCausalLM"], "model_type": "zorg"}


def planned(
    folder: Path, config: dict[str, Any], engine: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, Any]:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    words = ["plan", "-m", str(folder), "--gpu", "4090", "--context", "8k", "--offline", "--json"]
    code = run([*words, "--engine", engine])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp"])
def test_named_formats_claim_no_more_than_the_model(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = planned(tmp_path / "newm", NEW, engine, capsys)
    assert code == 0
    points = [document["recommended"], *document["frontier"]]
    assert {point["accuracy"]["provenance"] for point in points} == {"transferred"}


def test_a_known_type_names_its_folder_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, document = planned(tmp_path / "my.new-model", NEW, "llama.cpp", capsys)
    get = document["commands"][0]
    assert get["label"] == "Get"
    assert get["command"].startswith("my.new-model ")
    assert get["command"].endswith("search=my.new-model+GGUF")


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama"])
def test_an_unknown_type_is_planned_without_a_line_to_type(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = planned(tmp_path / "w", UNKNOWN, engine, capsys)
    assert code == 0
    assert document["commands"] == []
    assert any("nobody knows here whether llama.cpp has zorg" in x for x in document["warnings"])


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_server_refuses_an_unknown_type_with_a_hint(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = planned(tmp_path / "w", UNKNOWN, engine, capsys)
    assert code == 2
    assert "has zorg" in document["error"]
    assert "without --engine" in document["hint"]


def test_one_user_is_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "newm"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(NEW))
    words = ["plan", "-m", str(folder), "--gpu", "4090", "--context", "60k", "--offline"]
    assert run([*words, "--engine", "vllm"]) == 0
    assert "tokens a second for 1 user\n" in capsys.readouterr().out


def test_an_unknown_types_points_have_the_seconds_that_each_has_alone() -> None:
    """Those of all readings, in sweeps of the whole frontier."""
    spec, engine, gpu = read_model(UNKNOWN, "zorg"), find_engine("kvpareto"), find_gpu("4090")
    assert spec.ends
    table = evaluate(spec, Workload(8192), engine, gpu)
    for point in table.points_at(range(0, len(table.points.ttft), 9001)):
        alone = predict(spec, point.config, point.workload, engine, gpu)
        assert alone is not None
        assert point.latency is not None
        assert alone.ttft_low < alone.ttft_s < alone.ttft_high
        for name in ("ttft_s", "ttft_low", "ttft_high", "tpot_s", "tpot_low", "tpot_high"):
            assert getattr(point.latency, name) == pytest.approx(getattr(alone, name), rel=1e-9)
