"""The process in which vLLM runs: settings in, one line of JSON out for each thing that is known.

A process of its own, because vLLM gives its memory back only at its end, ends the process where it
cannot start, and forks workers of its own. Lines are appended to a file as they come, so that what
was measured before an end stays. Imports vLLM alone, so that it runs wherever that does.

    python child.py settings.json

Settings: `out`, `model`, `engine` (arguments of vllm.LLM), `vocab`, `seed`, `runs` (users, context,
output of each, and `lengths` of the users' prompts where they differ), `prompts` and `answer`
(token ids, and how many tokens each may take).
"""

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""Nothing is fetched and nothing is told to anybody."""
FIRST_TOKEN = 300
"""Token ids below it may be special: prompts are made of those above."""
PROFILED = {
    "requested": "requested_memory",
    "activation": "peak_activation_memory",
    "other": "non_torch_memory",
    "graphs_estimate": "cudagraph_memory_estimate",
}
"""What a worker's profile leaves on it, by our names."""
UNKNOWN = (AttributeError, TypeError, KeyError)
"""Where a release has not what is looked at: the log's lines are read instead."""


def main() -> None:
    """Settings from the file that the first argument names."""
    serve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def serve(wanted: dict[str, Any]) -> None:
    """Start the engine, take its memory, time the runs, and answer the prompts."""
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})

    def tell(event: str, **values: Any) -> None:
        with open(wanted["out"], "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **values}) + "\n")

    _end_with_parent()
    started = time.monotonic()
    try:
        import vllm

        tell("version", vllm=vllm.__version__, **_environment())
        _watch(tell)
        engine = vllm.LLM(model=wanted["model"], disable_log_stats=False, **wanted["engine"])
    except Exception as error:
        tell("refused", error=f"{type(error).__name__}: {error}"[:2000])
        raise
    tell("started", seconds=time.monotonic() - started)
    try:
        draw = random.Random(wanted.get("seed", 1))
        for run in wanted.get("runs", ()):
            tell("run", **_timed(engine, run, wanted["vocab"], draw))
        if prompts := wanted.get("prompts"):
            tell("answers", tokens=_answers(engine, prompts, wanted["answer"]))
    except Exception as error:
        tell("failed", error=f"{type(error).__name__}: {error}"[:2000])
        raise


def _end_with_parent() -> None:
    """Whoever asked may be killed; an engine that nobody reads would keep the card."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(0, signal.SIGKILL)

    if os.getpgrp() == os.getpid():  # a group of its own, which holds nobody else
        threading.Thread(target=watch, daemon=True).start()


def _environment() -> dict[str, Any]:
    found: dict[str, Any] = {"torch": version("torch"), "gpu": None}
    # The driver's library answers without making a context, which workers would inherit.
    with contextlib.suppress(Exception):  # no driver, or another vendor's
        import pynvml

        pynvml.nvmlInit()
        found["cards"] = pynvml.nvmlDeviceGetCount()
        found["gpu"] = str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)))
        pynvml.nvmlShutdown()
    return found


def _watch(tell: Callable[..., None]) -> None:
    """Have every worker tell its bytes. Forked workers inherit this; where they do not, or where
    a release names things otherwise, what the log prints is read instead (log_lines.py)."""
    try:
        from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity
        from vllm.v1.worker.gpu_worker import Worker
    except ImportError:
        return
    available, allocate = Worker.determine_available_memory, Worker.initialize_from_config

    def determine(self: Any) -> int:
        left = int(available(self))
        with contextlib.suppress(*UNKNOWN):
            tell_memory(self, left)
        return left

    def tell_memory(self: Any, left: int) -> None:
        rank, runner = getattr(self, "rank", 0), self.model_runner
        # A cache whose bytes were given (kv_cache_memory_bytes) is not profiled.
        profiled = {name: int(getattr(self, n)) for name, n in PROFILED.items() if hasattr(self, n)}
        tell(
            "memory",
            rank=rank,
            total=int(self.init_snapshot.total_memory),
            weights=int(runner.model_memory_usage),
            cache=left,
            runner="v2" if getattr(self, "use_v2_model_runner", False) else "v1",
            **profiled,
        )
        capture = runner.capture_model

        def captured(*args: Any, **kwargs: Any) -> int:
            taken = int(capture(*args, **kwargs))
            tell("graphs", rank=rank, graphs=taken)
            return taken

        runner.capture_model = captured

    def initialize(self: Any, config: Any) -> None:
        with contextlib.suppress(*UNKNOWN):
            tell_cache(self, config)
        allocate(self, config)

    def tell_cache(self: Any, config: Any) -> None:
        tokens, _ = get_kv_cache_capacity(self.vllm_config, config)
        specs = [(group.layer_names, group.kv_cache_spec) for group in config.kv_cache_groups]
        tell(
            "cache",
            rank=getattr(self, "rank", 0),
            blocks=int(config.num_blocks),
            tokens=int(tokens),
            block_size=int(self.vllm_config.cache_config.block_size),
            groups=[
                [len(names), type(spec).__name__, spec.block_size, spec.page_size_bytes]
                for names, spec in specs
            ],
        )

    Worker.determine_available_memory = determine
    Worker.initialize_from_config = initialize


def _timed(engine: Any, run: dict[str, Any], vocab: int, draw: random.Random) -> dict[str, Any]:
    """One burst: seconds to first tokens, between tokens, and of it all."""
    from vllm import SamplingParams

    ids = range(min(FIRST_TOKEN, vocab - 1), vocab)
    lengths = run.get("lengths") or [run["context"]] * run["users"]
    prompts = [{"prompt_token_ids": draw.choices(ids, k=tokens)} for tokens in lengths]
    asked = SamplingParams(
        max_tokens=run["output"], ignore_eos=True, temperature=0.0, detokenize=False
    )
    begun = time.perf_counter()
    outputs = engine.generate(prompts, asked, use_tqdm=False)
    total = time.perf_counter() - begun
    stats = [output.metrics for output in outputs if output.metrics is not None]
    first = sorted(float(s.first_token_latency) for s in stats)
    between = sorted(
        (s.last_token_ts - s.first_token_ts) / (run["output"] - 1)
        for s in stats
        if run["output"] > 1
    )
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {
        **run,
        "total_s": total,
        "ttft_s": sum(first) / len(first) if first else None,
        "ttft_last_s": first[-1] if first else None,
        "tpot_s": sum(between) / len(between) if between else None,
        "tokens_per_second": tokens / total,
    }


def _answers(engine: Any, prompts: list[list[int]], most: list[int]) -> list[list[int]]:
    """Greedy answers, all prompts at once as a server takes them."""
    from vllm import SamplingParams

    asked = [
        SamplingParams(max_tokens=tokens, temperature=0.0, detokenize=False) for tokens in most
    ]
    outputs = engine.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts], asked, use_tqdm=False
    )
    return [list(output.outputs[0].token_ids) for output in outputs]


if __name__ == "__main__":
    main()
