"""A server with the plugin under load: streams, errors, tokens, memory over time.

    pip install "kvpareto[vllm]"
    python benchmarks/vllm/serve_plugin.py --seconds 180 --streams 32
    python benchmarks/vllm/serve_plugin.py --cache fp8 --backend "" --port 8124
    python benchmarks/vllm/serve_plugin.py --model MODEL --more "--tensor-parallel-size 2"

Starts `vllm serve` on the recall model that ships (or another), asks its OpenAI endpoint for
completions from as many streams at once, each with prompts of its own, and prints what came:
requests, errors, tokens a second, and memory every 5 seconds, in MiB: the card's, that of the
server's processes on it (where their numbers are the card's too), what torch's allocator in the
worker has given out, holds and has given out at most (worker_memory.py), and the host's. Memory is
flat where neither the card's nor the host's grows by over 64 MiB (the host's: 256, its allocators
breathe) between the first 30 seconds and the end. `--where` says which line took it.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

RECALL = Path(__file__).parents[2] / "profiles/recall/recall"
SAID_EVERY = 5.0  # seconds
SETTLED = 6  # readings until every shape of batch has been there
GROWTH = {"card": 64, "host": 256}  # MiB
PORT = 8123


@dataclass
class ServedLoad:
    """What the streams saw."""

    requests: int = 0
    tokens: int = 0
    errors: list[str] = field(default_factory=list)
    memory_mib: list[dict[str, float]] = field(default_factory=list)

    def grew(self) -> dict[str, float]:
        """MiB of the last reading above those of the first that is settled."""
        first, last = self.memory_mib[min(SETTLED, len(self.memory_mib) - 1)], self.memory_mib[-1]
        return {name: round(last[name] - first[name], 1) for name in last if name in first}


@dataclass
class Server:
    """A process of `vllm serve` and its door."""

    process: "subprocess.Popen[bytes]"
    url: str
    where: bool


def main() -> None:
    """Serve, load, report; exit code 1 where a request failed or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(RECALL))
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--longest", type=int, default=8000, help="Tokens of a prompt.")
    parser.add_argument("--cache", default="int4_per_token_head")
    parser.add_argument("--backend", default="CUSTOM", help="Empty: vLLM's own choice.")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--where", action="store_true", help="Which line took memory; slower.")
    parser.add_argument("--more", default="", help="Further flags of vllm serve.")
    asked = parser.parse_args()
    flags = {
        "--port": str(asked.port),
        "--kv-cache-dtype": asked.cache,
        "--max-model-len": str(asked.longest + 300),
        "--served-model-name": "served",
        "--worker-extension-cls": "worker_memory.WorkerMemory",
    }
    if asked.backend:
        flags["--attention-backend"] = asked.backend
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", asked.model]
    command += [word for pair in flags.items() for word in pair] + shlex.split(asked.more)
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    known = os.environ | {"PYTHONPATH": ":".join(filter(None, paths)), "VLLM_SERVER_DEV_MODE": "1"}
    process = subprocess.Popen(command, env=known)
    server = Server(process, f"http://127.0.0.1:{asked.port}", asked.where)
    try:
        started = _wait(server)
        load = asyncio.run(_run(asked, server))
        grew = load.grew()
        print(json.dumps({
            "cache": asked.cache, "start_s": round(started, 1), "requests": load.requests,
            "errors": len(load.errors), "tokens_per_second": round(load.tokens / asked.seconds, 1),
            "grew_mib": grew, "first_errors": load.errors[:3],
        }), flush=True)  # fmt: skip
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    flat = all(grew[name] <= most for name, most in GROWTH.items())
    sys.exit(bool(load.errors) or not load.requests or not flat)


def _wait(server: Server) -> float:
    begun = time.monotonic()
    while server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=2):
                return time.monotonic() - begun
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit(f"the server ended with code {server.process.returncode}")


async def _run(asked: argparse.Namespace, server: Server) -> ServedLoad:
    load = ServedLoad()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        ask = functools.partial(_complete, session, f"{server.url}/v1/completions", load)
        await ask(random.Random(0), asked.longest)
        if server.where:
            await _workers(session, server, "watch_allocations")
        end = time.monotonic() + asked.seconds
        streams = [_stream(ask, load, n + 1, asked.longest, end) for n in range(asked.streams)]
        said = asyncio.create_task(_say(session, load, server))
        await asyncio.gather(*streams)
        said.cancel()
        load.memory_mib.append(await _memory(session, server))
    return load


async def _say(session: aiohttp.ClientSession, load: ServedLoad, server: Server) -> None:
    """A line now and then: what came so far is not lost where the run is ended."""
    held = 0.0
    while True:
        load.memory_mib.append(now := await _memory(session, server))
        seen = {"requests": load.requests, "errors": len(load.errors), "tokens": load.tokens}
        print(json.dumps(seen | {"memory_mib": now}), flush=True)
        if server.where and now.get("reserved", 0.0) > held:
            held = now["reserved"]
            for segment in await _workers(session, server, "new_segments"):
                print(json.dumps({"taken": segment}), flush=True)
        await asyncio.sleep(SAID_EVERY)


async def _workers(session: aiohttp.ClientSession, server: Server, method: str) -> Any:
    """A method of worker_memory.py in the first worker."""
    url = f"{server.url}/collective_rpc"
    async with session.post(url, json={"method": method}) as response:
        response.raise_for_status()
        return (await response.json())["results"][0]


async def _stream(
    ask: Callable[[random.Random, int], Awaitable[None]],
    load: ServedLoad,
    seed: int,
    longest: int,
    end: float,
) -> None:
    draw = random.Random(seed)
    while time.monotonic() < end:
        try:
            await ask(draw, longest)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            load.errors.append(repr(error)[:200])


async def _complete(
    session: aiohttp.ClientSession, url: str, load: ServedLoad, draw: random.Random, longest: int
) -> None:
    """One streamed completion. Raises ValueError for an answer that is none."""
    prompt = draw.choices(range(300, 3000), k=draw.randint(1, longest))
    wanted = draw.randint(1, 200)
    body = {
        "model": "served", "prompt": prompt, "max_tokens": wanted, "ignore_eos": True,
        "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    said = 0
    async with session.post(url, json=body) as response:
        if response.status != 200:
            raise ValueError(f"status {response.status}: {(await response.text())[:200]}")
        async for line in response.content:
            text = line.decode().removeprefix("data: ").strip()
            if text and text != "[DONE]":
                said = (json.loads(text).get("usage") or {}).get("completion_tokens", said)
    if said != wanted:
        raise ValueError(f"{said} tokens of {wanted}")
    load.requests += 1
    load.tokens += said


async def _memory(session: aiohttp.ClientSession, server: Server) -> dict[str, float]:
    """MiB: of the card that the server has, the first where it has several; of the server's
    processes on it; of torch in the first worker; resident on the host, of all its processes."""
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    first, resident = psutil.Process(server.process.pid), 0
    family = [first, *first.children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            resident += process.memory_info().rss
    said: dict[str, float] = {"card": sum(map(int, _smi(card, "gpu=memory.used")))}
    pairs = [line.split(", ") for line in _smi(card, "compute-apps=pid,used_memory")]
    numbers = {str(one.pid) for one in family}
    own = [float(used) for pid, used in pairs if pid in numbers]
    if own:
        said["processes"] = sum(own)
    said["host"] = resident >> 20
    torch_said = await _workers(session, server, "torch_memory")
    return said | {name: round(mib, 1) for name, mib in torch_said.items()}


def _smi(card: str, query: str) -> list[str]:
    command = ["nvidia-smi", "-i", card, f"--query-{query}", "--format=csv,noheader,nounits"]
    return subprocess.check_output(command, text=True).split("\n")[:-1]


if __name__ == "__main__":
    main()
