"""Layers over two devices by llama.cpp itself, on one processor: what lies on which.

    python benchmarks/llama_cpp/split.py LLAMA_SERVER RPC_SERVER rows.jsonl

Both programs are of one build with GGML_RPC=ON; two RPC servers are the devices. Small models of
profiles/llama_cpp/shapes.json are split as --tensor-split says; sizes are what llama.cpp prints.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from kvpareto import profiles
from kvpareto.calibration.llama_cpp.random_models import write_model

CASES = [
    ("llama-gqa", "2,4", ""),
    ("llama-gqa", "5,1", ""),
    ("gemma3", "3,6", "-ctk q8_0 -ctv q8_0"),
    ("qwen3-moe", "2,3", "-ctk q8_0 -ctv q5_1"),
    ("qwen3-moe", "3,2", "--n-cpu-moe 2"),
    ("gpt-oss", "2,3", ""),
    ("llama-gqa", "2,2", "-ngl 4"),
    ("deepseek-v2", "2,3", ""),
]
PORTS = (50061, 50062)
_SIZE = re.compile(
    r"(?:RPC0\[127\.0\.0\.1:(\d+)\]|(CPU\S*)) +(model|KV|compute) "
    r"buffer size (?:=|is) +([\d.]+) MiB"
)


def measure(server: str, devices: str, model: Path, split: str, flags: str) -> dict[str, Any]:
    """MiB by kind and device."""
    hosts = [subprocess.Popen([devices, "-p", str(port)]) for port in PORTS]
    time.sleep(1)
    names = ",".join(f"127.0.0.1:{port}" for port in PORTS)
    words = f"-c 2048 -ub 128 -np 1 -fa on --rpc {names} -ts {split} -fit off -lv 5 --no-warmup"
    more = flags if "-ngl" in flags else f"-ngl 99 {flags}"
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        command = [server, "-m", str(model), "--port", "50070", *words.split(), *more.split()]
        running = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(120):
            time.sleep(0.5)
            log.seek(0)
            if "listening" in log.read() or running.poll() is not None:
                break
        running.terminate()
        running.wait()
        for host in hosts:
            host.terminate()
            host.wait()
        log.seek(0)
        found: dict[str, dict[str, float]] = {"model": {}, "KV": {}, "compute": {}}
        for match in _SIZE.finditer(log.read()):
            port, name, kind, size = match.groups()
            device = f"card{PORTS.index(int(port))}" if port else name
            before = found[kind].get(device, 0.0) if kind != "compute" else 0.0
            found[kind][device] = round(before + float(size), 4)
    return found


def main(server: str, devices: str, out: Path) -> None:
    shapes = json.loads(profiles.read("llama_cpp/shapes.json"))
    with tempfile.TemporaryDirectory() as folder, out.open("a") as file:
        for shape, split, flags in CASES:
            model = Path(folder) / f"{shape}.gguf"
            write_model(shapes[shape], model)
            row = {"shape": shape, "layers": shapes[shape]["num_hidden_layers"], "split": split}
            row |= {"flags": flags} | measure(server, devices, model, split, flags)
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("llama_server")
    parser.add_argument("rpc_server")
    parser.add_argument("rows", type=Path)
    given = parser.parse_args()
    main(given.llama_server, given.rpc_server, given.rows)
