"""Models that are downloaded: from a hub of the test, good, huge, gated, silent or not there."""

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

from kvpareto.planner.errors import BadInput
from kvpareto.planner.models import hub
from tests.support.models.tiny_llama import CONFIG


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
        content = json.dumps(CONFIG).encode()
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
