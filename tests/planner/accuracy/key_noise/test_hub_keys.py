"""A plan of a hub id reads ranges of its checkpoint: what it asks for, and what it does without."""

import http.server
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from os import environ
from pathlib import Path

import pytest

from tests.planner.accuracy.key_checkpoints import BIASED, checkpoint

COMMIT = "0123456789" * 4
_CODE = """
import json, sys, time
from pathlib import Path
from kvpareto.planner.accuracy.key_noise.at_hand import payload_of, ranges_of
from kvpareto.planner.accuracy.predict import predict
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models import hub_ranges
import huggingface_hub
hub_ranges.SECONDS = float(sys.argv[2])
spec = load_model(sys.argv[1], offline=sys.argv[3] == "offline")
started = time.monotonic()
found = ranges_of(spec)
took = time.monotonic() - started
notes = predict(spec, Configuration.parse("w16a16-k4v4"), 4096).notes
print(json.dumps({
    "variance": payload_of(found)["variance"] if found else None,
    "proposals": found.proposals() if found else None,
    "seconds": took, "notes": [n for n in notes if "from the hub" in n],
}))
"""


@dataclass
class Served:
    """How a hub of one model behaves, and what it was asked for."""

    folder: Path
    how: str = "ranges"
    storage: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, file, the token it came with)."""
    sent: int = 0


class _Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        served, name = self.served, self.path.rsplit("/", 1)[-1]
        served.asked.append((self.command, name, self.headers.get("Authorization", "")))
        file, weights = served.folder / name, name.endswith(".safetensors")
        if not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif weights and served.how in ("401", "404"):
            code = "EntryNotFound" if served.how == "404" else "GatedRepo"
            self._send(int(served.how), b"", {"X-Error-Code": code})
        elif weights and served.storage:
            size = {"X-Linked-Size": str(file.stat().st_size), "X-Linked-ETag": '"1"'}
            self._send(302, b"", {**size, "Location": f"{served.storage}/x/{name}"})
        else:
            self._content(file.read_bytes(), weights)

    def _content(self, content: bytes, weights: bool) -> None:
        how, asked = self.served.how, self.headers.get("Range")
        if not weights or self.command == "HEAD" or how == "whole" or asked is None:
            return self._send(200, content, {})
        if how == "html":
            return self._send(200, b"<html>log in</html>", {"Content-Type": "text/html"})
        first, last = (int(text) for text in asked.removeprefix("bytes=").split("-"))
        if how == "stall" and first > 8:
            time.sleep(3)
        told = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        part = content[first : last + 1]
        if how == "trickle" and first > 8:
            return self._send(206, part, told, pause=0.2)
        return self._send(206, part, told)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], pause: float = 0.0
    ) -> None:
        self.send_response(status)
        for key, value in {"X-Repo-Commit": COMMIT, "ETag": '"1"', **headers}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        with suppress(OSError):
            self.end_headers()
            step = 1 if pause else 2**16
            for i in range(0, len(content) if self.command == "GET" else 0, step):
                time.sleep(pause)
                self.served.sent += self.wfile.write(content[i : i + step])

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Served]]:
    """Address of a hub, and how it behaves."""
    folder = tmp_path / "served"
    folder.mkdir()
    with _serving(Served(checkpoint(folder, 1000.0))) as found:
        yield found


class _serving:
    def __init__(self, served: Served) -> None:
        handler = type("_Served", (_Hub,), {"served": served})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.served = served

    def __enter__(self) -> tuple[str, Served]:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}", self.served

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def ask(tmp: Path, endpoint: str, model: str = "a/tiny", seconds: float = 5, how: str = "") -> dict:
    """A process of its own: huggingface_hub reads its endpoint at import."""
    own = {k: v for k, v in environ.items() if "proxy" not in k.lower() and k[:3] != "HF_"}
    more = {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_CACHE": str(tmp / "cache"),
        "HF_HUB_OFFLINE": "1" if how == "environment" else "0",
        "HF_TOKEN": "hf_secret",
        "KVPARETO_HOME": str(tmp / "home"),
    }
    line = [sys.executable, "-c", _CODE, model, str(seconds), how or "online"]
    done = subprocess.run(
        line, env={**own, **more}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict = json.loads(done.stdout)
    return answer


def test_a_served_repository_says_what_a_folder_says(
    tmp_path: Path, served: tuple[str, Served]
) -> None:
    address, hub = served
    found = ask(tmp_path, address)
    assert found["proposals"] == [[BIASED]]
    assert found["notes"] == []
    local = ask(tmp_path / "other", address, str(hub.folder))
    assert found["variance"] == local["variance"]
    before = len(hub.asked)
    again = ask(tmp_path, address)
    assert again["variance"] == found["variance"]
    assert len(hub.asked) == before  # the second plan asks nothing


def test_shards_that_hold_no_keys_are_not_asked_for(
    tmp_path: Path, served: tuple[str, Served]
) -> None:
    address, hub = served
    shutil.move(hub.folder / "model.safetensors", hub.folder / "model-1.safetensors")
    (hub.folder / "model-2.safetensors").write_bytes(b"\xff" * 64)
    listed = {
        "model.layers.0.self_attn.k_proj.bias": "model-1.safetensors",
        "lm_head.weight": "model-2.safetensors",
    }
    (hub.folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    found = ask(tmp_path, address)
    assert found["proposals"] == [[BIASED]]
    assert not any(name == "model-2.safetensors" for _, name, _ in hub.asked)


def test_the_token_stays_with_the_hub(tmp_path: Path, served: tuple[str, Served]) -> None:
    address, hub = served
    with _serving(Served(hub.folder)) as (storage, other):
        hub.storage = storage
        assert ask(tmp_path, address)["proposals"] == [[BIASED]]
        assert other.asked
        assert {token for _, _, token in other.asked} == {""}
    assert {token for _, _, token in hub.asked} == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("whole", "gives no ranges"),
        ("html", "gives no ranges"),
        ("401", "is gated"),
        ("404", "has no safetensors"),
        ("stall", "seconds"),
        ("trickle", "seconds"),
    ],
)
def test_a_hub_that_does_not_give_ranges_is_done_without(
    tmp_path: Path, served: tuple[str, Served], how: str, said: str
) -> None:
    address, hub = served
    hub.how = how
    if how == "whole":
        with (hub.folder / "model.safetensors").open("ab") as file:
            file.truncate(2**26)
    found = ask(tmp_path, address, seconds=1.0)
    assert found["variance"] is None
    assert len(found["notes"]) == 1
    assert said in found["notes"][0]
    assert found["seconds"] < 2.5
    assert hub.sent < 2**25  # what fits in buffers on the way


def test_a_failure_is_remembered_for_a_while(tmp_path: Path, served: tuple[str, Served]) -> None:
    address, hub = served
    hub.how = "stall"
    first = ask(tmp_path, address, seconds=1.0)
    before = len(hub.asked)
    again = ask(tmp_path, address, seconds=1.0)
    assert (len(hub.asked), again["notes"]) == (before, first["notes"])
    (kept,) = (tmp_path / "home" / "key_ranges").glob("*.failed.json")
    document = json.loads(kept.read_text())
    kept.write_text(json.dumps({**document, "at": document["at"] - 601}))
    hub.how = "ranges"
    assert ask(tmp_path, address)["proposals"] == [[BIASED]]
    assert not kept.exists()


@pytest.mark.parametrize("length", [2**62, 10**7, 50 * 2**20, 0])
def test_an_absurd_header_is_not_asked_for(
    tmp_path: Path, served: tuple[str, Served], length: int
) -> None:
    address, hub = served
    file = hub.folder / "model.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])
    if length == 50 * 2**20:  # the file is as long as that, and the limit is lower
        with file.open("ab") as opened:
            opened.truncate(2**26)
    found = ask(tmp_path, address)
    assert found["variance"] is None
    said = "would have to be read" if length == 50 * 2**20 else "no safetensors file"
    assert said in found["notes"][0]
    assert hub.sent < 2**16


@pytest.mark.parametrize("how", ["offline", "environment"])
def test_an_offline_plan_asks_nothing(tmp_path: Path, served: tuple[str, Served], how: str) -> None:
    address, hub = served
    snapshot = tmp_path / "cache" / "models--a--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    shutil.copy(hub.folder / "config.json", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    found = ask(tmp_path, address, how=how)
    assert found["variance"] is None
    assert found["notes"] == []
    assert hub.asked == []


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://huggingface.co/a/b", True),
        ("https://huggingface.co.example.com/a/b", False),
        ("http://huggingface.co/a/b", False),
        ("https://huggingface.co:8443/a/b", False),
    ],
)
def test_the_token_goes_to_the_very_endpoint(
    url: str, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from kvpareto.planner.models.hub_get import own_headers

    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    assert bool(own_headers(url)) is own
