"""`profiles check`: transformers' model of a config is the truth that the reading is held to."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import kvpareto
from kvpareto.calibration.config_check import check
from kvpareto.cli import run
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.report.records.schemas import json_schema, kind_of

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def write(path: Path, config: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config), encoding="utf-8")


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = run(["profiles", "check", *arguments, "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


def test_a_call_leaves_torch_and_logging_as_they_were(tmp_path: Path) -> None:
    import torch

    write(tmp_path / "config.json", LLAMA)
    torch.set_num_threads(2)
    logging.disable(logging.NOTSET)
    found = kvpareto.profiles_check(tmp_path)
    jsonschema.validate(found, json_schema("profiles_check"))
    assert kind_of(found) == "profiles_check"
    assert torch.get_num_threads() == 2
    assert logging.root.manager.disable == logging.NOTSET


def test_a_model_read_rightly_is_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "small" / "config.json", LLAMA)
    write(tmp_path / "index.json", {"metadata": {}})  # no config: not counted
    code, found = answer(capsys, str(tmp_path))
    assert (code, found["verified"]) == (0, True)
    (small,) = found["configs"]
    assert (small["name"], small["model_type"]) == ("small", "llama")
    assert small["parameters"] == small["cache"] == {"verdict": "exact"}
    # embeddings and head; per layer q, o, k, v, three of the FFN, two norms; the last norm
    assert small["total"] == 2 * 128 * 64 + 2 * (64 * (2 * 64 + 2 * 32 + 3 * 160) + 2 * 64) + 64


def test_one_file_is_checked_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "other"):
        write(tmp_path / f"{name}.json", LLAMA)
    code, found = answer(capsys, str(tmp_path / "one.json"))
    assert (code, [c["name"] for c in found["configs"]]) == (0, ["one"])


def test_what_is_read_wrongly_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "config.json", LLAMA)
    read: Callable[..., ModelSpec] = check.read_model

    def without_norms(config: Any, name: str) -> ModelSpec:
        spec = read(config, name)
        return replace(spec, tensors=tuple(t for t in spec.tensors if "layernorm" not in t.name))

    monkeypatch.setattr(check, "read_model", without_norms)
    code, found = answer(capsys, str(tmp_path))
    assert (code, found["verified"], found["exit_code"]) == (1, False, 1)
    assert found["configs"][0]["parameters"]["groups"] == [
        "model.layers.*.input_layernorm.weight",
        "model.layers.*.post_attention_layernorm.weight",
    ]
    assert found["counts"]["parameters"] == {"differs": 1}


def test_files_that_cannot_be_read_are_named_and_the_others_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe{")
    write(tmp_path / "b" / "config.json", LLAMA)
    (tmp_path / "c" / "config.json").mkdir(parents=True)
    (tmp_path / "d.json").write_text("[1, 2]")
    (tmp_path / "e.json").symlink_to(tmp_path / "nowhere")
    code, found = answer(capsys, str(tmp_path))
    verdicts = {one["name"]: one["parameters"]["verdict"] for one in found["configs"]}
    unreadable = dict.fromkeys("acde", "unreadable")
    assert verdicts == {**unreadable, "b": "exact"}
    assert (code, found["exit_code"], found["verified"]) == (2, 2, False)
    assert found["error"].startswith("4 configs of ")
    assert all(one["parameters"]["why"] for one in found["configs"] if one["name"] != "b")
    assert run(["profiles", "check", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out.count("unreadable") == 5  # a line each, and the count
    assert [line.split(":")[0] for line in err.splitlines()[-2:]] == ["error", "hint"]


def test_a_refused_config_and_one_that_transformers_cannot_make(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.json", {"model_type": "llama", "hidden_size": "wide"})
    write(tmp_path / "b.json", {**LLAMA, "model_type": "nobodys_type"})
    code, found = answer(capsys, str(tmp_path))
    assert code == 1
    refused, unmade = (one["parameters"] for one in found["configs"])
    assert refused["verdict"] == "refused"
    assert "hidden_size" in refused["why"]
    assert unmade["verdict"] == "not instantiable"


@pytest.mark.parametrize("made", [True, False], ids=["empty", "missing"])
def test_a_folder_without_configs_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: bool
) -> None:
    folder = tmp_path / "models"
    if made:
        folder.mkdir()
    code, found = answer(capsys, str(folder))
    assert (code, found["exit_code"]) == (2, 2)
    assert "models" in found["error"]
