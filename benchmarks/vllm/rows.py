"""Starts of vLLM on this machine's cards, one JSON line each: the rows that plans are held to.

    pip install vllm
    CUDA_VISIBLE_DEVICES=0 python benchmarks/vllm/rows.py benchmarks/vllm/rows.json rows.jsonl
    python benchmarks/vllm/rows.py DESIGN OUT --only l8-tp2 --until 300

A design is a list of starts: `id`, `config` (a file of profiles/models, or a path), `weights`
(bf16, awq, gptq4, fp8, own), `layers` (a depth to cut to, or null), settings by vLLM's own names,
and `runs`: [users, prompt, output] of each burst. Weights are random, of the real shape, and no
tokenizer is needed. vLLM is imported once; each start is a forked child, which takes the card's
memory with it when it ends.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvpareto.calibration.vllm.child import serve
from kvpareto.calibration.vllm.random_checkpoint import vocabulary, write_checkpoint
from kvpareto.calibration.vllm.start import StartReading, read_events

PROFILES = Path(__file__).parents[2] / "profiles" / "models"
SETTINGS = (
    "max_model_len",
    "kv_cache_dtype",
    "max_num_batched_tokens",
    "max_num_seqs",
    "gpu_memory_utilization",
    "enforce_eager",
    "kv_cache_memory_bytes",
    "compilation_config",
)
"""vLLM's own names. `kv_cache_memory_bytes`, where it is given, instead of a profile of the memory;
`compilation_config` for graphs of few sizes, which are captured sooner."""
USUAL: dict[str, Any] = {
    "layers": None,
    "weights": "bf16",
    "kv_cache_dtype": "auto",
    "max_num_batched_tokens": 8192,
    "max_num_seqs": 256,
    "gpu_memory_utilization": 0.92,
    "enforce_eager": False,
    "cards": 1,
    "runs": [],
}
WARM_UP = {"users": 2, "context": 500, "output": 3}


def main() -> None:
    """Every start of the design that is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("design", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="Ids with commas.")
    parser.add_argument("--until", type=float, default=1e9, help="Seconds after which none starts.")
    parser.add_argument("--patience", type=float, default=170.0, help="Seconds of a start.")
    asked = parser.parse_args()
    begun = time.monotonic()
    design = [USUAL | start for start in json.loads(asked.design.read_text())]
    done = {json.loads(line)["id"] for line in asked.out.open()} if asked.out.exists() else set()
    only = set(asked.only.split(",")) - {""}
    import vllm  # once: forked children have it then
    import vllm.v1.worker.gpu_worker

    print(f"vllm {vllm.__version__} imported in {time.monotonic() - begun:.0f} s", flush=True)
    for start in design:
        if start["id"] in done or (only and start["id"] not in only):
            continue
        left = asked.until - (time.monotonic() - begun)
        if left < 40:
            print(f"{start['id']}: no time left", flush=True)
            continue
        at = time.monotonic()
        row = measure(start, min(asked.patience, left), asked.out.with_suffix(".log"))
        with asked.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(f"{time.monotonic() - begun:5.0f} s {line_of(row)} ({time.monotonic() - at:.0f} s)")
        sys.stdout.flush()


def measure(start: dict[str, Any], patience: float, log: Path) -> dict[str, Any]:
    """One start in a forked child, its row; the engine's log goes to the end of `log`."""
    with tempfile.TemporaryDirectory() as folder:
        child = spawn(prepared(start, Path(folder)), Path(folder, "log"))
        late = time.monotonic() + patience
        while not child.ended() and time.monotonic() < late:
            time.sleep(0.1)
        ended = child.ended()
        child.end()
        _wait_for_memory()
        return row_of(start, Path(folder), patience, ended, log)


def prepared(start: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A child's settings for one start; its model and what it tells lie in `folder`."""
    path = Path(start["config"])
    config = json.loads((path if path.exists() else PROFILES / path).read_text())
    model = folder / start["id"]
    write_checkpoint(config, model, start["weights"].replace("own", ""), start["layers"])
    told = folder / "told.jsonl"
    told.write_text("")
    runs = [dict(zip(("users", "context", "output"), run, strict=True)) for run in start["runs"]]
    return {
        "out": str(told),
        "model": str(model),
        "engine": {name: start[name] for name in SETTINGS if name in start}
        | {"load_format": "dummy", "skip_tokenizer_init": True, "dtype": "bfloat16"}
        | {"enable_prefix_caching": False, "tensor_parallel_size": start["cards"], "seed": 0},
        "vocab": vocabulary(config),
        "runs": [WARM_UP, *runs] if runs else [],
    }


def row_of(
    start: dict[str, Any], folder: Path, patience: float, ended: bool, log: Path
) -> dict[str, Any]:
    """What a start told that is over; its log goes to the end of `log`."""
    text = (folder / "log").read_text(errors="replace")
    with log.open("a") as file:
        file.write(f"=== {start['id']}\n{text}\n")
    lines = [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]
    runner = next((e["runner"] for e in lines if e["event"] == "memory"), None)
    return _row(start, read_events(lines, text, None if ended else patience), runner, ended, text)


@dataclass
class Child:
    """A forked process and the engine's processes, which are of its group."""

    pid: int
    over: bool = False

    def ended(self) -> bool:
        """Whether it ended by itself."""
        self.over = self.over or os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return self.over

    def signal(self, which: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, which)

    def end(self) -> None:
        """It and the engine's processes are gone afterwards."""
        self.signal(signal.SIGKILL)
        if not self.over:
            os.waitpid(self.pid, 0)
            self.over = True


def spawn(wanted: dict[str, Any], log: Path, environment: Mapping[str, str] | None = None) -> Child:
    """A forked child that starts the engine; what it prints goes to `log`."""
    child = os.fork()
    if child:
        return Child(child)
    os.setsid()
    os.environ.update(environment or {})
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        serve(wanted)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(0)


def _wait_for_memory() -> None:
    """Until the driver has taken back what the child held: the next start counts what is free."""
    cards = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1")
    ask = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    for _ in range(40):
        try:
            said = subprocess.run(ask, capture_output=True, text=True, timeout=10).stdout.split()
        except (OSError, subprocess.TimeoutExpired):
            return
        ours = [int(said[int(card)]) for card in cards.split(",") if int(card) < len(said)]
        if max(ours, default=0) < 1200:
            return
        time.sleep(0.25)


def _row(
    start: dict[str, Any], reading: StartReading, runner: str | None, ended: bool, log: str
) -> dict[str, Any]:
    """As profiles/vllm has them: bytes by the names of the earlier rows."""
    memory, cache = reading.memory, reading.cache
    timed = {
        (burst.users, burst.context, burst.output): burst  # of several alike, the last
        for burst in reading.bursts
        if burst.context != WARM_UP["context"]
    }.values()
    return {
        "id": start["id"],
        "engine": f"vllm {reading.version}",
        "gpu": reading.gpu,
        "date": datetime.now(UTC).date().isoformat(),
        "weights_random": True,
        "config": start["config"],
        "layers": start["layers"],
        "weights": start["weights"],
        **{name: start[name] for name in SETTINGS if name in start},
        "cards": start["cards"],
        "model_runner": runner,
        "compiled_before": "Directly load" in log,
        "total": memory.get("total"),
        "requested": memory.get("requested"),
        "weights_bytes": memory.get("weights"),
        "activation": memory.get("activation"),
        "non_torch": memory.get("other"),
        "graphs_estimate": memory.get("graphs_estimate"),
        "graphs": memory.get("graphs"),
        "available": memory.get("cache"),
        "starts": reading.started,
        "error": reading.error,
        "ended": ended,
        "start_s": reading.seconds,
        **cache,
        "speed": [
            {
                "users": burst.users,
                "context": burst.context,
                "output": burst.output,
                "ttft_s": burst.ttft,
                "ttft_last_s": burst.ttft_last,
                "tpot_s": burst.tpot,
                "total_s": burst.total,
            }
            for burst in timed
        ],
    }


def line_of(row: dict[str, Any]) -> str:
    """What is printed of a row."""
    if not row["starts"]:
        return f"{row['id']}: does not start: {row['error'][:300]}"
    bursts = ", ".join(
        f"{s['users']}x{s['context']}: {s['ttft_s']:.3f} s {1e3 * (s['tpot_s'] or 0):.2f} ms"
        for s in row["speed"]
    )
    wrong = f" WRONG {row['error'][:200]}" if row["error"] else ""
    return f"{row['id']}: {row.get('tokens')} tokens, start {row['start_s']:.0f} s; {bursts}{wrong}"


if __name__ == "__main__":
    main()
