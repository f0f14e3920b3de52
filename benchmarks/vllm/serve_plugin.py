"""A server with the plugin under load: streams, errors, tokens, memory over time.

    pip install "kvpareto[vllm]"
    python benchmarks/vllm/serve_plugin.py --seconds 180 --streams 32
    python benchmarks/vllm/serve_plugin.py --model MODEL --more "--tensor-parallel-size 2"

Starts `vllm serve` on the recall model that ships (or another), asks its OpenAI endpoint for
completions from as many streams at once, each with prompts of its own, and prints what came:
requests, errors, tokens a second, and memory over time: the card's used MiB and the host's of the
server's processes, every 15 seconds. Memory is flat where neither grows by over 64 MiB (the host's:
256, its allocators breathe) between the first 30 seconds and the end.
"""

import argparse
import asyncio
import contextlib
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
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

RECALL = Path(__file__).parents[2] / "profiles/recall/recall"
PORT = 8123
SAID_EVERY = 15.0  # seconds
SETTLED = 2  # readings until every shape of batch has been there
GROWTH = (64, 256)  # MiB: of the card, of the host


@dataclass
class ServedLoad:
    """What the streams saw."""

    requests: int = 0
    tokens: int = 0
    errors: list[str] = field(default_factory=list)
    memory_mib: list[tuple[int, int]] = field(default_factory=list)  # of the card, of the host

    def grew(self) -> tuple[int, int]:
        """MiB of the last reading above those of the first that is settled."""
        (card, host), (last_card, last_host) = self.memory_mib[SETTLED], self.memory_mib[-1]
        return last_card - card, last_host - host


def main() -> None:
    """Serve, load, report; exit code 1 where a request failed or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(RECALL))
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--longest", type=int, default=8000, help="Tokens of a prompt.")
    parser.add_argument("--cache", default="int4_per_token_head")
    parser.add_argument("--more", default="", help="Further flags of vllm serve.")
    asked = parser.parse_args()
    flags = {
        "--port": str(PORT),
        "--attention-backend": "CUSTOM",
        "--kv-cache-dtype": asked.cache,
        "--max-model-len": str(asked.longest + 300),
        "--served-model-name": "served",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", asked.model]
    command += [word for pair in flags.items() for word in pair] + shlex.split(asked.more)
    server = subprocess.Popen(command)
    try:
        started = _wait(server)
        load = asyncio.run(_run(asked, server.pid))
        grew = load.grew()
        print(json.dumps({
            "start_s": round(started, 1), "requests": load.requests, "errors": len(load.errors),
            "tokens_per_second": round(load.tokens / asked.seconds, 1), "grew_mib": grew,
            "memory_mib": load.memory_mib, "first_errors": load.errors[:3],
        }), flush=True)  # fmt: skip
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
    flat = all(more <= most for more, most in zip(grew, GROWTH, strict=True))
    sys.exit(bool(load.errors) or not load.requests or not flat)


def _wait(server: "subprocess.Popen[bytes]") -> float:
    begun = time.monotonic()
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2):
                return time.monotonic() - begun
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit(f"the server ended with code {server.returncode}")


async def _run(asked: argparse.Namespace, server: int) -> ServedLoad:
    load = ServedLoad()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        await _complete(session, load, random.Random(0), asked.longest)
        end = time.monotonic() + asked.seconds
        streams = [_stream(session, load, n + 1, asked.longest, end) for n in range(asked.streams)]
        said = asyncio.create_task(_say(load, server))
        await asyncio.gather(*streams)
        said.cancel()
    load.memory_mib.append(_memory(server))
    return load


async def _say(load: ServedLoad, server: int) -> None:
    """A line now and then: what came so far is not lost where the run is ended."""
    while True:
        load.memory_mib.append(_memory(server))
        seen = {"requests": load.requests, "errors": len(load.errors), "tokens": load.tokens}
        print(json.dumps(seen | {"memory_mib": load.memory_mib[-1]}), flush=True)
        await asyncio.sleep(SAID_EVERY)


async def _stream(
    session: aiohttp.ClientSession, load: ServedLoad, seed: int, longest: int, end: float
) -> None:
    draw = random.Random(seed)
    while time.monotonic() < end:
        try:
            await _complete(session, load, draw, longest)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            load.errors.append(repr(error)[:200])


async def _complete(
    session: aiohttp.ClientSession, load: ServedLoad, draw: random.Random, longest: int
) -> None:
    """One streamed completion. Raises ValueError for an answer that is none."""
    prompt = draw.choices(range(300, 3000), k=draw.randint(1, longest))
    wanted = draw.randint(1, 200)
    body = {
        "model": "served", "prompt": prompt, "max_tokens": wanted, "ignore_eos": True,
        "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    url, said = f"http://127.0.0.1:{PORT}/v1/completions", 0
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


def _memory(server: int) -> tuple[int, int]:
    """MiB in use on the card that the server has, the first where it has several; and resident
    on the host, of the server and the processes that it started."""
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    query = ["nvidia-smi", "-i", card, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    used = int(subprocess.check_output(query, text=True).split()[0])
    resident, first = 0, psutil.Process(server)
    for process in (first, *first.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            resident += process.memory_info().rss
    return used, resident >> 20


if __name__ == "__main__":
    main()
