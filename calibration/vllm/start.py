"""Starting vLLM with a plan's flags, and reading what it says."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...planner.errors import MissingDependency
from ...planner.install import install_command
from ...planner.libraries import broken_library
from .log_lines import DIGIT, read_log

CHILD = Path(__file__).with_name("child.py")
PATIENCE = 1800.0
"""Seconds after which a run is given up."""


@dataclass(frozen=True)
class Burst:
    """`users` prompts of `context` tokens sent at once, `output` tokens each; then what it took:
    seconds to the first token (mean, last), between tokens, of it all. `lengths`: tokens of each
    user's prompt where they differ, and `context` is their mean."""

    users: int
    context: int
    output: int
    ttft: float | None = None
    ttft_last: float | None = None
    tpot: float | None = None
    total: float | None = None
    tokens_per_second: float | None = None
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True)
class StartReading:
    """What one start told.

    `memory`: bytes of a card by name: total, requested, weights, activation, other,
    graphs_estimate, graphs, cache; of several cards the fullest's. `cache`: blocks, tokens, groups.
    `digit`: by how much the bytes may be off (0 where workers told them).
    """

    started: bool
    error: str = ""
    version: str = ""
    gpu: str | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    cache: Mapping[str, Any] = field(default_factory=dict)
    bursts: tuple[Burst, ...] = ()
    answers: tuple[tuple[int, ...], ...] = ()
    digit: int = 0
    seconds: float | None = None
    log: str = ""


def engine_arguments(flags: Mapping[str, str]) -> dict[str, Any]:
    """`vllm serve`'s flags as arguments of vllm.LLM: {"--max-model-len": "4096"} ->
    {"max_model_len": 4096}; a flag without a value is True, --no-x is False."""
    found: dict[str, Any] = {}
    for flag, value in flags.items():
        name = flag.removeprefix("--").replace("-", "_")
        if not value:
            off = name.startswith("no_")
            found[name.removeprefix("no_") if off else name] = not off
            continue
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def is_installed() -> bool:
    """Whether vLLM is there, without importing it."""
    return find_spec("vllm") is not None


def check_installed() -> None:
    """Raises MissingDependency without vLLM, which brings its own torch and transformers."""
    if not is_installed():
        install = install_command("vllm")
        raise MissingDependency(
            "vLLM is not installed: vllm is missing",
            f"run {install}",
            {"missing": "vllm", "install": install},
        )


def run_engine(
    model: str,
    flags: Mapping[str, str],
    *,
    vocab: int,
    bursts: Sequence[Burst] = (),
    prompts: Sequence[Sequence[int]] = (),
    answer: Sequence[int] = (),
    random_weights: bool = False,
    seed: int = 1,
    patience: float = PATIENCE,
) -> StartReading:
    """Start vLLM, time the bursts, answer the prompts. A start that vLLM refuses is a Reading too.

    Raises MissingDependency without vLLM, and where its import fails.
    """
    check_installed()
    with tempfile.TemporaryDirectory() as folder:
        out, settings = Path(folder, "told.jsonl"), Path(folder, "settings.json")
        out.touch()
        wanted = {
            "out": str(out),
            "model": model,
            "engine": engine_arguments(flags)
            | {"skip_tokenizer_init": True, "seed": 0}
            | ({"load_format": "dummy"} if random_weights else {}),
            "vocab": vocab,
            "seed": seed,
            "runs": [
                {n: getattr(b, n) for n in ("users", "context", "output", "lengths")}
                for b in bursts
            ],
            "prompts": [list(prompt) for prompt in prompts],
            "answer": list(answer),
        }
        settings.write_text(json.dumps(wanted), encoding="utf-8")
        log, ended = _run_child(settings, Path(folder, "log"), patience)
        told = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    if ended and not any(event["event"] == "version" for event in told):
        wrong = [event["error"] for event in told if event["event"] == "refused"]
        raise broken_library("vllm", _said(wrong, "" if wrong else log), "verify")
    return read_events(told, log, cut=None if ended else patience)


def _run_child(settings: Path, log: Path, patience: float) -> tuple[str, bool]:
    """The log, and whether the child ended by itself. Its own children end with it."""
    with log.open("w", encoding="utf-8") as file:
        child = subprocess.Popen(
            [sys.executable, str(CHILD), str(settings)],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        ended = True
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            ended = False
        finally:
            with contextlib.suppress(ProcessLookupError):  # all of them have ended
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return log.read_text(encoding="utf-8", errors="replace"), ended


def read_events(
    told: Sequence[Mapping[str, Any]], log: str = "", cut: float | None = None
) -> StartReading:
    """A Reading of a child's lines; the log fills in what they lack. `cut`: seconds after which it
    was ended from outside, before it was done."""
    version = next((e for e in told if e["event"] == "version"), {})
    started = next((e for e in told if e["event"] == "started"), None)
    wrong = [e["error"] for e in told if e["event"] in ("refused", "failed")]
    if cut is not None:
        wrong = [f"it was ended after {cut:.0f} seconds, before it was done"]
    memory: dict[str, int] = {}
    for event in told:
        if event["event"] in ("memory", "graphs"):
            for name, value in event.items():
                if name not in ("event", "rank", "runner"):
                    worst = min if name in ("cache", "total", "requested") else max
                    memory[name] = worst(memory.get(name, value), value)
    cache = next((dict(e) for e in told if e["event"] == "cache"), {})
    printed = read_log(log)
    digit = 0 if memory else DIGIT
    if not memory:
        memory = {n: v for n, v in printed.items() if n not in ("tokens", "longest")}
    if "tokens" not in cache and "tokens" in printed:
        cache["tokens"] = printed["tokens"]
    if "longest" in printed:
        cache["longest"] = printed["longest"]
    return StartReading(
        started=started is not None,
        error=_said(wrong, "" if cut else log) if started is None or wrong else "",
        version=str(version.get("vllm", "")),
        gpu=version.get("gpu"),
        memory=memory,
        cache={n: v for n, v in cache.items() if n not in ("event", "rank")},
        bursts=tuple(_burst(e) for e in told if e["event"] == "run"),
        answers=tuple(
            tuple(tokens) for e in told if e["event"] == "answers" for tokens in e["tokens"]
        ),
        digit=digit,
        seconds=started["seconds"] if started is not None else None,
        log=log,
    )


def _burst(event: Mapping[str, Any]) -> Burst:
    return Burst(
        event["users"],
        event["context"],
        event["output"],
        event["ttft_s"],
        event["ttft_last_s"],
        event["tpot_s"],
        event["total_s"],
        event["tokens_per_second"],
        tuple(event["lengths"]),
    )


def _said(wrong: Sequence[str], log: str) -> str:
    """Why it did not start: the engine's own error line, which its process wrote, comes first."""
    lines = [line.strip() for line in log.splitlines()]
    errors = [
        line.split("] ", 1)[-1] for line in lines if "Error: " in line and "Traceback" not in line
    ]
    inner = [line for line in errors if "Engine core init" not in line]
    return (inner or list(wrong) or errors or lines or ["it said nothing"])[-1][:500]
