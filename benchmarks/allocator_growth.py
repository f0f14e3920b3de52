"""Where torch's allocator grew beyond what was live, and who asked: for slack that is unexplained.

    python benchmarks/allocator_growth.py Qwen/Qwen2.5-3B-Instruct w8a16-k8v8+pc512 --context 16384

Random weights at real shapes on a GPU, loaded and run once as `verify` does, with the allocator's
history recorded. A line for each new high of the reserved bytes: what it grew by, what was live
then, the gap between the two, and the calls that led there.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from kvpareto.calibration.execution.loaded_model import open_model
from kvpareto.calibration.execution.memory_cap import prefer_expandable_segments
from kvpareto.calibration.execution.run import execute
from kvpareto.calibration.execution.run_record import Warmup
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.workload import Workload

OUTPUT = 24
MOST_EVENTS = 400_000
MIB = 2**20


def caller(event: Mapping[str, Any]) -> str:
    """The innermost calls that are not torch's own."""
    frames = [f for f in event.get("frames", []) if "/torch/" not in f["filename"]]
    named = (f"{f['filename'].split('/')[-1]}:{f['line']} {f['name']}" for f in frames[:4])
    return " < ".join(named)


def growth(trace: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """A line for each new high of what is reserved."""
    live: dict[int, int] = {}
    used = reserved = most = 0
    for event in trace:
        action, size = event["action"], event["size"]
        if action == "alloc":
            live[event["addr"]] = size
            used += size
        elif action == "free_completed":
            used -= live.pop(event["addr"], 0)
        elif action in ("segment_map", "segment_alloc"):
            reserved += size
            if reserved > most:
                most = reserved
                yield (
                    f"+{size / MIB:.0f} MiB: reserved {reserved / MIB:.0f}, live {used / MIB:.0f}, "
                    f"gap {(reserved - used) / MIB:.0f}  {caller(event)}"
                )
        elif action in ("segment_unmap", "segment_free"):
            reserved -= size


def main() -> None:
    parser = argparse.ArgumentParser(description="growth of the allocator beyond what is live")
    parser.add_argument("model")
    parser.add_argument("config")
    parser.add_argument("--context", type=int, default=16384)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: no CUDA GPU\nhint: run this on a machine with one")
    prefer_expandable_segments()
    config = Configuration.parse(asked.config)
    torch.cuda.memory._record_memory_history(max_entries=MOST_EVENTS, stacks="python")
    with open_model(
        asked.model, config.weight_bits, device="cuda", random_weights=True, offline=True
    ) as opened:
        work = Workload(asked.context, OUTPUT)
        found = execute(opened, config, work, engine=KVPARETO, budget=None, warmup=Warmup.SHORT)
        trace = torch.cuda.memory._snapshot()["device_traces"][0]
    print("\n".join(growth(trace)))
    print(f"{found.outcome}; {len(trace)} events of the allocator")


if __name__ == "__main__":
    main()
