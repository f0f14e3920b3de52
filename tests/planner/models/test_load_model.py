"""Where a model comes from: bundled ids, folders, files, the hub's cache, the hub; and mistakes."""

import contextlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvpareto.planner.errors import BadConfig, BadInput
from kvpareto.planner.load_model import load_config, load_model
from kvpareto.planner.models import hub
from kvpareto.planner.models.bundled import bundled_models
from kvpareto.planner.models.untrusted_json import parse_json_object
from tests.support.tiny_llama import CONFIG

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
    ],
)
def test_near_misses_are_suggested(wrong: str, right: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_model(wrong, offline=True)
    assert caught.value.hint.startswith(f"did you mean {right}")


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


class _Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one good, one huge, one gated and one empty repository, an adapter, and one that
    announces 600 bytes and sends for ever; others do not exist."""

    sent = 0

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        repo, code = self.path.split("/resolve/")[0].strip("/"), None
        content = json.dumps(LLAMA).encode()
        if repo == "huge/model":
            content = b" " * (2**24 + 1)
        if repo == "adapter/model":
            content = b'{"base_model_name_or_path": "good/model"}'
        known = repo in ("good/model", "huge/model", "endless/model")
        if (known and self.path.endswith("/config.json")) or (
            repo == "adapter/model" and self.path.endswith("/adapter_config.json")
        ):
            self.send_response(200)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", '"1234"')
        else:
            status, code = {
                "gated/model": (403, "GatedRepo"),
                "good/model": (404, "EntryNotFound"),
                "empty/model": (404, "EntryNotFound"),
                "adapter/model": (404, "EntryNotFound"),
                "endless/model": (404, "EntryNotFound"),
            }.get(repo, (404, "RepoNotFound"))
            content = b""
            self.send_response(status)
            self.send_header("X-Error-Code", code)
        if repo == "endless/model" and body:
            self.end_headers()
            with contextlib.suppress(OSError):
                while _Hub.sent < 2**30:
                    _Hub.sent += self.wfile.write(b" " * 2**20)
            self.close_connection = True
            return
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def fake_hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _ask(model: str, cache: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Load `model` in a process of its own: huggingface_hub reads its endpoint at import."""
    code = (
        "import sys; from kvpareto.planner.load_model import load_model\n"
        "from kvpareto.planner.errors import KVParetoError\n"
        "try: spec = load_model(sys.argv[1]); print(spec.name, spec.hidden, spec.extra['source'])\n"
        "except KVParetoError as e: print('error:', e.message, '| hint:', e.hint)\n"
    )
    environment = {
        **{k: v for k, v in os.environ.items() if "proxy" not in k.lower()},
        "HF_ENDPOINT": endpoint,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", code, model],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("good/model", r"good/model 64 hub\n"),
        ("huge/model", r"error: the config\.json of huge/model has 16,777,217 bytes"),
        ("gated/model", r"error: gated/model is gated.*HF_TOKEN"),
        ("empty/model", r"error: empty/model is on the hub, but has no config\.json"),
        ("adapter/model", r"error: 'adapter/model' is a LoRA adapter of good/model"),
        ("endless/model", r"error: the config\.json of endless/model has 16,\d{3},\d{3} bytes"),
        ("missing/model", r"error: no model 'missing/model' on the hub"),
    ],
)
def test_downloads(model: str, expected: str, tmp_path: Path, fake_hub: str) -> None:
    answer = _ask(model, tmp_path / "cache", fake_hub)
    assert re.match(expected, answer.stdout), answer
    assert "Traceback" not in answer.stderr
    if model == "endless/model":
        assert _Hub.sent < 2**28  # what fits in buffers on the way, not a gigabyte
    if model == "good/model":
        assert _ask(model, tmp_path / "cache", "http://127.0.0.1:9").stdout.endswith("hub cache\n")


def test_an_unreachable_hub_is_asked_once(tmp_path: Path) -> None:
    answer = _ask("someone/unknown", tmp_path / "cache", "http://127.0.0.1:9")
    assert "cannot be reached" in answer.stdout, answer
    assert "Retrying" not in answer.stderr  # huggingface_hub's retries would take 23 s


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "TOTAL_SECONDS", 0.2)
    monkeypatch.setattr(hub, "_fetch", lambda repo_id: threading.Event().wait(3))
    with pytest.raises(BadInput, match="did not answer"):
        hub.download_config("someone/slow")


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
