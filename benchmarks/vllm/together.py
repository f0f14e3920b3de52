"""Starts of vLLM side by side on one card, for their speed: `rows.py` when minutes are few.

    CUDA_VISIBLE_DEVICES=0 python benchmarks/vllm/together.py benchmarks/vllm/speeds.json rows.jsonl
    … together.py benchmarks/vllm/classes.json rows.jsonl    # kinds that few models were run with

A start is a minute of compiling on one core, a burst is a second of the card. So all starts of the
design compile at once, each with a cache of `kv_cache_memory_bytes` (nothing of its memory is
profiled then). Whichever is ready runs its bursts while the processes of all the others are
stopped, so its seconds are those of a card of its own. `gib` of a start is what it takes at most.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from rows import USUAL, Child, line_of, prepared, row_of, spawn

STOPPED = 0.4
"""Seconds until what the stopped processes had queued on the card is done."""


class GatedRuns:
    """A child's bursts, which wait until the parent lets them go."""

    def __init__(self, runs: list[dict[str, Any]], ready: Path, go: Path) -> None:
        self.runs, self.ready, self.go = runs, ready, go

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.ready.touch()
        while not self.go.exists():
            time.sleep(0.02)
        return iter(self.runs)


@dataclass
class Waiting:
    """A start under way. `folder` has its model, its log and what it told."""

    start: dict[str, Any]
    folder: Path
    child: Child
    begun: float

    @property
    def ready(self) -> bool:
        return (self.folder / "ready").exists()


def main() -> None:
    """Every start of the design, a row each as it ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("design", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="Ids with commas.")
    parser.add_argument("--gib", type=float, default=120.0, help="GiB of the card to fill.")
    parser.add_argument("--until", type=float, default=1e9, help="Seconds after which all end.")
    parser.add_argument("--patience", type=float, default=60.0, help="Seconds of a start's bursts.")
    parser.add_argument("--folder", type=Path, help="Models and compiled code, for later starts.")
    asked = parser.parse_args()
    begun = time.monotonic()
    only = set(asked.only.split(",")) - {""}
    design = [USUAL | start for start in json.loads(asked.design.read_text())]
    queue = [start for start in design if not only or start["id"] in only]
    import vllm  # once: forked children have it then
    import vllm.v1.worker.gpu_worker

    print(f"vllm {vllm.__version__} imported in {time.monotonic() - begun:.0f} s", flush=True)
    top = asked.folder or Path(tempfile.mkdtemp())
    under: list[Waiting] = []
    while (queue or under) and time.monotonic() - begun < asked.until:
        taken = sum(one.start["gib"] for one in under)
        if queue and (not under or taken + queue[0]["gib"] <= asked.gib):
            under.append(_begin(queue.pop(0), top))
            continue
        over = [one for one in under if one.child.ended()]
        if not over and (ready := next((one for one in under if one.ready), None)):
            left = asked.until - (time.monotonic() - begun)
            _alone(ready, [one for one in under if one is not ready], min(asked.patience, left))
            over = [ready]
        for one in over:
            under.remove(one)
            _end(one, asked.out, begun)
        time.sleep(0.1)
    for one in under:
        _end(one, asked.out, begun)


def _begin(start: dict[str, Any], top: Path) -> Waiting:
    folder = top / start["id"]
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ready", "go"):
        (folder / name).unlink(missing_ok=True)
    wanted = prepared(start, folder)
    runs = wanted["runs"][:1] + wanted["runs"][1:] * start.get("repeat", 1)
    wanted["runs"] = GatedRuns(runs, folder / "ready", folder / "go")
    # compiled code of its own: a stopped process may hold a lock on a shared one
    names = ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
    environment = {name: str(folder / "code" / name.lower()) for name in names}
    child = spawn(wanted, folder / "log", environment)
    return Waiting(start, folder, child, time.monotonic())


def _alone(one: Waiting, others: list[Waiting], patience: float) -> None:
    """Its bursts, nobody else on the card."""
    for other in others:
        other.child.signal(signal.SIGSTOP)
    time.sleep(STOPPED)
    (one.folder / "go").touch()
    late = time.monotonic() + patience
    while not one.child.ended() and time.monotonic() < late:
        time.sleep(0.05)
    if not one.child.over:
        one.child.signal(signal.SIGSTOP)
    for other in others:
        other.child.signal(signal.SIGCONT)


def _end(one: Waiting, out: Path, begun: float) -> None:
    ended = one.child.over
    one.child.end()
    taken = time.monotonic() - one.begun
    row = row_of(one.start, one.folder, taken, ended, out.with_suffix(".log"))
    row |= {"side_by_side": True}
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(f"{time.monotonic() - begun:5.0f} s {line_of(row)} ({taken:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
