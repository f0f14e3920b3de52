"""Starting llama.cpp with the settings of a plan, and reading what it says."""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from ...planner.engines.llama_cpp.run_settings import RunSettings
from ...planner.errors import BadInput
from ...planner.libraries import broken_library, missing_library
from .breakdown import Breakdown, read_breakdown
from .child import IMPORTED

CHILD = Path(__file__).with_name("child.py")
PATIENCE = 600.0
"""Seconds after which a run is given up."""
VERBOSITY = "4"
"""Sizes are printed; at 5 a debug log costs a server seconds for each prompt."""


@dataclass(frozen=True)
class RunReadings:
    """What one run printed and answered; seconds are those that llama.cpp counts itself."""

    breakdown: Breakdown
    ttft: float | None
    tpot: float | None
    texts: tuple[str, ...]
    version: str
    log: str
    resident: int | None = None
    """Bytes that its process held at most; None where the system does not say."""


def run_library(
    path: Path,
    run: RunSettings,
    prompts: Sequence[list[int] | str] = (),
    predict: int = 1,
    batch: int | None = None,
    gpu_layers: int = -1,
    patience: float = PATIENCE,
) -> RunReadings:
    """Load `path` with these settings, answer the prompts, and read the log.

    Raises MissingDependency without xllamacpp or with one that is broken, BadInput where llama.cpp
    does not take the file.
    """
    if find_spec("xllamacpp") is None:
        raise missing_library("xllamacpp", "llama.cpp is not here: xllamacpp is missing")
    settings = {
        "path": str(path),
        "context": run.total_context,
        "sequences": run.sequences,
        "micro_batch": run.micro_batch,
        "batch": batch or max(run.micro_batch, 2048),
        "keys": run.keys,
        "values": run.values,
        "flash": run.flash,
        "swa_full": run.swa_full,
        "unified": run.unified,
        "gpu_layers": gpu_layers,
        "prompts": list(prompts),
        "predict": predict,
    }
    command = [sys.executable, str(CHILD), json.dumps(settings)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=patience
        )
    except subprocess.TimeoutExpired:
        raise BadInput(
            f"llama.cpp did not answer within {patience:.0f} seconds", "ask for a shorter context"
        ) from None
    if IMPORTED not in done.stdout.splitlines():
        raise broken_library("xllamacpp", _end(done), "llama.cpp")
    last = done.stdout.strip().splitlines()[-1:] or [""]
    if done.returncode or not last[0].startswith("{"):
        raise BadInput(
            f"llama.cpp did not run {path.name}: {_last_error(done.stderr)}",
            "see whether the file is whole, and whether it fits in memory",
        )
    answer = json.loads(last[0])
    version = f"xllamacpp {answer['version']}"
    return _reading(answer["answers"], version, done.stderr, answer["resident"])


def run_binary(
    binary: Path,
    flags: Sequence[tuple[str, str | None]],
    prompts: Sequence[list[int]],
    predict: int,
    patience: float = PATIENCE,
) -> RunReadings:
    """The same by a llama-server of the user's, started with a plan's flags.

    Raises BadInput where it cannot be started or does not answer.
    """
    port = _free_port()
    words = [word for flag in flags for word in flag if word is not None]
    command = [str(binary), *words, "--host", "127.0.0.1", "--port", str(port), "-lv", VERBOSITY]
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        try:
            server = subprocess.Popen(command, stdout=log, stderr=log)
        except OSError as error:
            raise BadInput(
                f"{binary} cannot be started: {error.strerror}", "give the path of llama-server"
            ) from None
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, server, patience)
            answers = [_ask(address, prompt, predict, patience) for prompt in prompts]
        except (OSError, ValueError) as error:
            log.seek(0)
            raise BadInput(
                f"{binary.name} did not answer: {_last_error(log.read()) or error}",
                "see whether the file is whole, and whether it fits in memory",
            ) from None
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        log.seek(0)
        return _reading(answers, binary.name, log.read(), None)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(address: str, server: "subprocess.Popen[bytes]", patience: float) -> None:
    """Until the server is healthy. Raises OSError where it ends or takes too long."""
    late = time.monotonic() + patience
    while time.monotonic() < late:
        if server.poll() is not None:
            raise OSError("it ended")
        try:
            with urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise OSError("it took too long")


def _ask(address: str, prompt: list[int], predict: int, patience: float) -> dict[str, Any]:
    asked = {"prompt": prompt, "n_predict": predict, "ignore_eos": True, "cache_prompt": False}
    request = Request(
        f"{address}/completion",
        json.dumps(asked | {"temperature": 0}).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=patience) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


def _reading(
    answers: Sequence[dict[str, Any]], version: str, log: str, resident: int | None
) -> RunReadings:
    timings = [a["timings"] for a in answers if "timings" in a]
    first = [t["prompt_ms"] / 1000 for t in timings]
    later = [t["predicted_per_token_ms"] / 1000 for t in timings if t["predicted_n"] > 1]
    return RunReadings(
        breakdown=read_breakdown(log),
        ttft=sorted(first)[len(first) // 2] if first else None,
        tpot=sorted(later)[len(later) // 2] if later else None,
        texts=tuple(a["choices"][0]["text"] for a in answers if a.get("choices")),
        version=version,
        log=log,
        resident=resident,
    )


def _end(done: "subprocess.CompletedProcess[str]") -> str:
    """What a process said last, or the signal that ended it."""
    if done.returncode < 0 and not done.stderr.strip():
        return f"its process was ended by signal {-done.returncode}"
    return _last_error(done.stderr)


def _last_error(log: str) -> str:
    lines = [line for line in log.splitlines() if "error" in line.lower() or "failed" in line]
    return (lines or log.splitlines() or ["it said nothing"])[-1].split(" E ", 1)[-1].strip()
