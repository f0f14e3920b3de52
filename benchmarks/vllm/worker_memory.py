"""What a vLLM worker says of its memory, over the server's own door for such calls.

vLLM mixes the class that `--worker-extension-cls worker_memory.WorkerMemory` names into its worker;
`POST /collective_rpc` (VLLM_SERVER_DEV_MODE=1) calls the methods. serve_plugin.py starts it so.
"""

from typing import Any

import torch

HELD = 1000  # segments remembered


class WorkerMemory:
    """Methods of each worker, beside vLLM's."""

    told_us = 0  # when the last segment was taken that has been told

    def watch_allocations(self) -> None:
        """From now on remember which line took memory. Steps are a little slower."""
        torch.cuda.memory._record_memory_history(
            context="alloc",
            stacks="python",
            max_entries=HELD,
            skip_actions=["alloc", "free_requested", "free_completed"],
        )

    def torch_memory(self) -> dict[str, float]:
        """MiB that torch's allocator has given out, holds, and has given out at most."""
        said = torch.cuda.memory_stats()
        return {
            "allocated": said["allocated_bytes.all.current"] / 2**20,
            "reserved": said["reserved_bytes.all.current"] / 2**20,
            "peak": said["allocated_bytes.all.peak"] / 2**20,
        }

    def new_segments(self) -> list[dict[str, Any]]:
        """Memory that torch's allocator took from the card since the last call, of what is
        remembered: MiB and the lines that asked, the innermost first."""
        traces = torch.cuda.memory._snapshot()["device_traces"]
        every = [e for device in traces for e in device if e["action"] == "segment_alloc"]
        taken = [event for event in every if event["time_us"] > self.told_us]
        self.told_us = max((event["time_us"] for event in every), default=self.told_us)
        return [
            {
                "mib": event["size"] / 2**20,
                "lines": [f"{f['filename'][-60:]}:{f['line']} {f['name']}"
                          for f in event.get("frames", ())[:12]],
            }
            for event in taken
        ]  # fmt: skip
