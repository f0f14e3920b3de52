"""What a GPU did while something ran, event by event, as torch's profiler records it."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch


def recorded(work: Callable[[], object], kinds: Collection[str] = ("kernel",)) -> list[Any]:
    """Events of these kinds while `work` runs, by their starts: `ts` and `dur` in microseconds,
    `name`, `args`."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
        work()
        torch.cuda.synchronize()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        trace.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return sorted((e for e in events if e.get("cat") in kinds), key=lambda e: e["ts"])
