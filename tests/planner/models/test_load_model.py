"""Where a model comes from: bundled ids, folders, files, the hub's cache, the hub; and mistakes."""

import json
import os
from pathlib import Path

import pytest

from kvpareto.planner.errors import BadConfig, BadInput
from kvpareto.planner.load_model import load_config, load_model
from kvpareto.planner.models.bundled import bundled_models
from kvpareto.planner.models.untrusted_json import parse_json_object
from tests.support.models.tiny_llama import CONFIG

LLAMA = {**CONFIG, "torch_dtype": "bfloat16"}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of the test's own, and no network unless the test says so."""
    cache = tmp_path / "hub-cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return cache


def _folder(path: Path, config: dict[str, object] = LLAMA) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_bundled_ids_ignore_case() -> None:
    spec = load_model("qwen/qwen2.5-7b-INSTRUCT")
    assert spec.name == "Qwen/Qwen2.5-7B-Instruct"
    assert spec.parameters == 7_615_616_512


def test_an_alias_keeps_its_own_name() -> None:
    spec = load_model("meta-llama/Llama-3.3-70B-Instruct")
    assert spec.name == "meta-llama/Llama-3.3-70B-Instruct"
    assert spec.parameters == load_model("meta-llama/Llama-3.1-70B-Instruct").parameters


def test_folder_file_and_renamed_file_give_the_same_model(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "my-model")
    copy = tmp_path / "other.json"
    copy.write_text(json.dumps(LLAMA))
    specs = [load_model(str(p)) for p in (folder, folder / "config.json", copy)]
    assert [spec.name for spec in specs] == ["my-model", "my-model", "other"]
    assert len({spec.tensors for spec in specs}) == 1


def test_raw_config_is_what_the_file_says(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "raw", {**LLAMA, "auto_map": {"AutoConfig": "evil.Config"}})
    loaded = load_config(str(folder))
    assert loaded.config["auto_map"] == {"AutoConfig": "evil.Config"}
    assert (loaded.name, loaded.folder) == ("raw", folder)


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path / "evil",
        {**LLAMA, "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.M"}},
    )
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    spec = load_model(str(folder), trust_remote_code=True)
    assert spec.parameters > 0
    assert not (tmp_path / "ran").exists()


def test_the_hub_cache_is_read_without_the_hub(empty_cache: Path) -> None:
    repo = empty_cache / "models--someone--tiny"
    _folder(repo / "snapshots" / "abc123")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc123")
    spec = load_model("someone/tiny")
    assert (spec.name, spec.hidden, spec.extra["source"]) == ("someone/tiny", 64, "local hub cache")


def test_a_cached_config_wins_over_the_bundled_copy(empty_cache: Path) -> None:
    repo = empty_cache / "models--Qwen--Qwen3-8B"
    _folder(repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    assert load_model("Qwen/Qwen3-8B").hidden == 64


def test_a_cache_entry_that_leads_out_of_the_cache_is_passed_over(empty_cache: Path) -> None:
    repo = empty_cache / "models--Qwen--Qwen3-8B"
    for folder in ("refs", "snapshots"):
        (repo / folder).mkdir(parents=True)
    outside = _folder(empty_cache.parent / "outside")
    (repo / "refs" / "main").write_text("../../../outside")
    assert (repo / "snapshots" / "../../../outside").samefile(outside)
    assert load_model("Qwen/Qwen3-8B").hidden == 4096


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("Qwen/Qwen2.5-7B-Instrct", "Qwen/Qwen2.5-7B-Instruct"),
        ("Llama-3.1-8B-Instuct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("mistral/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("llama3", "meta-llama/Llama-3"),
        ("qwen3", "Qwen/Qwen3-"),
        ("gemma3", "google/gemma-3-"),
        ("gptoss", "openai/gpt-oss-"),
        ("deepseek", "deepseek-ai/DeepSeek-"),
        ("Mistral", "mistralai/Mistral-"),
    ],
)
def test_near_misses_are_suggested(wrong: str, right: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_model(wrong, offline=True)
    assert caught.value.hint.startswith(f"did you mean {right}")


@pytest.mark.parametrize("path", ["./x", "~/qwen3x", "/x", "x", "..."])
def test_a_path_is_no_family_of_models(path: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_model(path, offline=True)
    assert "did you mean" not in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "   ", "\0", "a" * 5000, "a//b", "a/b/c", "../nowhere", "~nobody-at-all/x", "ab cd", "💥"],
)
def test_what_is_no_model_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_model(text)
    assert caught.value.hint


def test_weight_files_are_not_configs(tmp_path: Path) -> None:
    path = tmp_path / "llama.bin"
    path.write_bytes(b"PK")
    for text in (str(path), "model.safetensors"):
        with pytest.raises(BadInput, match="file of weights"):
            load_model(text)


def test_a_folder_without_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"no config\.json"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b"[1, 2]", "not an object"),
        (b"null", "not an object"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"a": 1, "a": 2}', "two different values"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"hidden_size": ' + b"9" * 6000 + b"}", "too long to read"),
        (b'{"a": 1', "not JSON"),
    ],
)
def test_broken_files_are_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    for text in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(BadConfig, match=message) as caught:
            load_model(str(text))
        assert "\n" not in caught.value.message
        assert caught.value.hint


def test_agreeing_duplicates_and_a_byte_order_mark_are_read() -> None:
    assert parse_json_object(b'\xef\xbb\xbf{"a": 1, "a": 1}', "x") == {"a": 1}


def test_huge_files_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    big = tmp_path / "config.json"
    with big.open("wb") as file:
        file.truncate(100 * 10**6)
    with pytest.raises(BadConfig, match="100,000,000 bytes"):  # by its size, without reading it
        load_model(str(big))
    os.mkfifo(tmp_path / "pipe.json")
    for path in ("/dev/zero", str(tmp_path / "pipe.json")):
        with pytest.raises(BadInput):
            load_model(path)


def test_offline_is_said_so() -> None:
    with pytest.raises(BadInput, match="offline") as caught:
        load_model("someone/unknown-model-xyz")
    assert "config.json" in caught.value.hint


def test_bundled_models_are_listed_with_aliases() -> None:
    names = bundled_models()
    assert names == sorted(names, key=str.lower)
    assert {"Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"} <= set(names)


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("qwen2.5-7b-instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen3-8B-Base", "Qwen/Qwen3-8B-Base"),
        ("gpt2", "gpt2"),
    ],
)
def test_a_name_without_its_owner_is_enough_where_one_model_has_it(typed: str, named: str) -> None:
    assert load_model(typed, offline=True).name == named


def test_a_name_of_several_owners_is_asked_back(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"models": {"a/Twin-1B": {}, "b/twin-1b": {}}, "aliases": {}}
    monkeypatch.setattr("kvpareto.planner.models.bundled.bundled_index", lambda: entry)
    with pytest.raises(BadInput, match="several models are called 'TWIN-1B'") as caught:
        load_model("TWIN-1B", offline=True)
    assert caught.value.hint == "name one: a/Twin-1B, b/twin-1b"


def test_a_part_of_names_suggests_them() -> None:
    with pytest.raises(BadInput) as caught:
        load_model("llama", offline=True)
    assert caught.value.hint.startswith("did you mean meta-llama/Llama-")
