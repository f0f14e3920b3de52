"""What people type for a model: addresses, slashes and tags; folders that hold something else."""

import json
from pathlib import Path

import pytest

from kvpareto.planner.errors import BadConfig, BadInput
from kvpareto.planner.load_model import load_config, load_model
from kvpareto.planner.models.model_name import plain_name
from tests.support.models.tiny_llama import CONFIG


@pytest.mark.parametrize(
    "typed",
    [
        "org/name", " org/name ", "org/name/", "org/name//", "https://huggingface.co/org/name",
        "http://www.huggingface.co/org/name/", "HTTPS://HuggingFace.co/org/name",
        "https://huggingface.co/org/name/tree/main", "https://huggingface.co/org/name/tree/main/",
        "https://huggingface.co/org/name/blob/main/config.json?download=true",
        "https://huggingface.co/org/name/resolve/main/config.json",
        "https://huggingface.co/org/name#readme", "https://huggingface.co/org/name.git",
        "https://huggingface.co/org/name/discussions/3", "https://hf.co/org/name",
        "https://hf-mirror.com/org/name", "huggingface.co/org/name", "hf.co/org/name?x=1",
        "hf://org/name",
    ],
)  # fmt: skip
def test_addresses_are_understood(typed: str) -> None:
    assert plain_name(typed) == "org/name"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("https://huggingface.co/org/name/tree/v2", "the revision 'v2' of org/name"),
        ("https://huggingface.co/org/name/tree/main/sub", "a folder inside org/name"),
        ("https://huggingface.co/org/name/blob/main/sub/config.json", "a folder inside org/name"),
        ("https://huggingface.co/org/name/blob/main/q4.gguf", "a file of GGUF weights"),
        ("https://huggingface.co/datasets/org/name", "no model's page"),
        ("https://huggingface.co/spaces/org/name", "no model's page"),
        ("https://huggingface.co", "no model's page"),
        ("https://example.com/org/name", "not of a model on the hub"),
        ("http://[", "no web address"), ("qwen3:8b", "an Ollama name"),
        ("org/name:Q4_K_M", "names the tag 'Q4_K_M'"), ("org/name@v2", "names the revision 'v2'"),
    ],
)  # fmt: skip
def test_what_names_something_else_is_answered_by_what_it_is(typed: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        plain_name(typed)
    assert says in caught.value.message
    assert caught.value.hint


def test_a_folder_of_that_name_goes_before_a_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my:model").mkdir()
    Path("my:model/config.json").write_text(json.dumps(CONFIG))
    assert load_model("my:model").hidden == CONFIG["hidden_size"]


def test_an_endpoint_that_is_no_address_is_minded_by_downloads_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://[")
    assert plain_name("https://huggingface.co/org/name") == "org/name"
    assert plain_name("org/name") == "org/name"
    with pytest.raises(BadInput, match="not of a model on the hub"):
        plain_name("https://models.example.com/org/name")


def test_an_endpoint_of_ones_own_is_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://models.example.com")
    assert plain_name("https://models.example.com/org/name/tree/main") == "org/name"


@pytest.mark.parametrize(
    ("files", "says", "hint"),
    [
        ({"adapter_config.json": '{"base_model_name_or_path": "org/base"}'},
         "a LoRA adapter of org/base", "give org/base"),
        ({"adapter_config.json": "not json"}, "is a LoRA adapter", "trained on"),
        ({"a.gguf": "GGUF"}, "is a GGUF file", "original model"),
        ({"model_index.json": "{}"}, "a pipeline of diffusers", "language models"),
        ({"params.json": "{}"}, "its maker's own format", "converted"),
        ({"README.md": ""}, "no config.json", "transformers would load"),
    ],
)  # fmt: skip
def test_folders_of_other_things(
    files: dict[str, str], says: str, hint: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(BadInput) as caught:
        load_config(str(tmp_path))
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_files_of_other_things_and_a_folder_of_folders(tmp_path: Path) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(BadConfig, match="a LoRA adapter of org/base"):
        load_config(str(file))
    file = tmp_path / "model_index.json"
    file.write_text('{"_class_name": "FluxPipeline", "_diffusers_version": "0.30.0"}')
    with pytest.raises(BadConfig, match="a config of diffusers"):
        load_model(str(file))
    (tmp_path / "many" / "one").mkdir(parents=True)
    (tmp_path / "many" / "one" / "config.json").write_text("{}")
    with pytest.raises(BadConfig) as caught:
        load_config(str(tmp_path / "many"))
    assert caught.value.hint == "give one of the folders in it: one"
    (tmp_path / "models--org--name").mkdir()
    with pytest.raises(BadConfig) as caught:
        load_config(str(tmp_path / "models--org--name"))
    assert caught.value.hint == "give org/name"
