"""What a plan types for a model that was given as a path, with weights and without."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

import kvpareto
from tests.support.command_lines import STORIES

BUDGET = {"budget": "4GB"}
PORTS = {"vllm": 8000, "sglang": 30000}
"""Where each listens unless it is told otherwise."""
VLLM = {"engine": "vllm", "gpu": "H100"}
SGLANG = {"engine": "sglang", "gpu": "H100"}


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with nothing but a config.json."""
    folder = tmp_path / "a model"
    folder.mkdir()
    shutil.copy(Path(STORIES, "config.json"), folder)
    return folder


def plan(model: object, **words: Any) -> dict[str, Any]:
    return dict(kvpareto.plan(str(model), offline=True, context=128, output=16, **words))


def commands(found: dict[str, Any]) -> dict[str, list[str]]:
    return {one["label"]: shlex.split(one["command"]) for one in found["commands"]}


@pytest.mark.parametrize(
    ("words", "before"),
    [
        (BUDGET, ["kvpareto", "run", "-m"]),
        (VLLM, ["vllm", "serve"]),
        (SGLANG, ["python", "-m", "sglang.launch_server", "--model-path"]),
    ],
)
def test_what_loads_weights_is_given_the_folder_of_a_config(
    bare: Path, words: dict[str, str], before: list[str]
) -> None:
    for typed in (bare, bare / "config.json"):
        typed_words = commands(plan(typed, **words))["Run it"]
        assert typed_words[: len(before)] == before
        assert typed_words[len(before)] == str(bare)


@pytest.mark.parametrize("words", [BUDGET, VLLM])
def test_a_model_without_weights_is_checked_with_random_ones(
    bare: Path, words: dict[str, str]
) -> None:
    found = plan(bare, **words)
    assert commands(found)["Check it"][-1] == "--random-weights"
    assert f"no weights lie at {bare}: running it needs them" in found["warnings"]
    for model in (STORIES, "Qwen/Qwen3-0.6B"):
        with_weights = plan(model, **words)
        assert "--random-weights" not in commands(with_weights)["Check it"]
        assert not any("no weights" in note for note in with_weights["warnings"])


def test_a_file_of_another_name_has_no_folder(bare: Path) -> None:
    file = (bare / "config.json").rename(bare / "stories.json")
    shutil.copy(Path(STORIES, "model.safetensors"), bare)
    found = plan(file, **BUDGET)
    assert commands(found)["Run it"][3] == str(file)
    assert f"no weights lie at {file}: running it needs them" in found["warnings"]


def test_llama_cpp_gets_a_file_whatever_lies_here(bare: Path) -> None:
    found = plan(bare, **BUDGET, engine="llama.cpp")
    assert not any("no weights" in note for note in found["warnings"])


@pytest.mark.parametrize("words", [VLLM, SGLANG])
def test_a_container_sees_the_folder(bare: Path, words: dict[str, str]) -> None:
    text = plan(bare, **words, snippet="docker")["snippet"]["text"]
    typed = shlex.split(text.replace("\\\n", " "))
    assert f"{bare.parent}:/models:ro" in typed
    assert f"/models/{bare.name}" in typed
    assert (
        ":/models:ro" not in plan("Qwen/Qwen3-0.6B", **words, snippet="docker")["snippet"]["text"]
    )


@pytest.mark.parametrize("words", [VLLM, SGLANG])
def test_a_deployment_claims_a_volume_for_a_folder_alone(bare: Path, words: dict[str, str]) -> None:
    yaml = pytest.importorskip("yaml")
    for model, mounted in ((bare, True), ("Qwen/Qwen3-0.6B", False)):
        document = yaml.safe_load(plan(model, **words, snippet="k8s")["snippet"]["text"])
        inside = document["spec"]["template"]["spec"]
        (box,) = inside["containers"]
        assert (
            {"name": "models", "mountPath": "/models", "readOnly": True} in box["volumeMounts"]
        ) == mounted
        assert ("models" in [volume["name"] for volume in inside["volumes"]]) == mounted
        port = box["ports"][0]["containerPort"]
        assert port == box["readinessProbe"]["httpGet"]["port"] == PORTS[words["engine"]]
