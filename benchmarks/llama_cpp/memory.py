"""llama.cpp's own sizes for small models of many shapes: the rows that predictions are held to.

    pip install "kvpareto[llamacpp]" gguf
    python benchmarks/llama_cpp/memory.py profiles/llama_cpp/memory_cpu.jsonl

Each shape of profiles/llama_cpp/shapes.json is written as a GGUF file with random weights and
loaded under several settings; what llama.cpp prints is appended to the file. Rows that are there
already are not run again.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from kvpareto import profiles
from kvpareto.calibration.llama_cpp.random_models import write_model
from kvpareto.calibration.llama_cpp.start import run_library
from kvpareto.planner.engines.llama_cpp.run_settings import RunSettings

CACHES = [
    ("f16", "f16"),
    ("q8_0", "q8_0"),
    ("q8_0", "q5_1"),
    ("q4_0", "q4_0"),
    ("f16", "q4_0"),
    ("bf16", "bf16"),
    ("q5_0", "iq4_nl"),
    ("q4_1", "q8_0"),
]
MORE = [
    {"context": 5000, "sequences": 4, "micro_batch": 256},
    {"context": 3000, "sequences": 2, "micro_batch": 512, "unified": True},
    {"context": 4096, "sequences": 3, "micro_batch": 200},
    {"context": 8192, "flash": False, "micro_batch": 256},
    {"context": 700, "flash": False, "sequences": 2},
    {"context": 4096, "swa_full": True},
    {"context": 300, "micro_batch": 512},
]


def settings(index: int, latent: bool) -> Iterator[RunSettings]:
    """Six settings for the shape of that number; a latent is K alone, and V has K's type."""
    contexts, batches = (1000, 2048, 4096, 8192, 16384), (64, 128, 512, 1024, 2048)
    for turn in range(4):
        n = 3 * index + turn
        keys, values = CACHES[n % len(CACHES)]
        yield RunSettings(
            context=contexts[(n + turn) % 5],
            micro_batch=batches[(n * 2 + turn) % 5],
            keys=keys,
            values=keys if latent else values,
        )
    yield RunSettings(**MORE[index % len(MORE)])
    yield RunSettings(**MORE[(index + 3) % len(MORE)])


def main(path: Path) -> None:
    """Run what is missing; one row at a time, on disk before the next begins."""
    shapes = json.loads(profiles.read("llama_cpp/shapes.json"))
    lines = path.read_text().splitlines() if path.exists() else []
    done = {json.dumps([r["shape"], r["run"]]) for r in map(json.loads, lines)}
    build = f"xllamacpp {version('xllamacpp')}"
    with tempfile.TemporaryDirectory() as folder, path.open("a") as file:
        for index, (name, config) in enumerate(shapes.items()):
            model = Path(folder) / f"{name}.gguf"
            for run in settings(index, "kv_lora_rank" in config):
                if json.dumps([name, asdict(run)]) in done:
                    continue
                if not model.exists():
                    write_model(config, model)
                breakdown = run_library(model, run, patience=60).breakdown
                row = {"shape": name, "run": asdict(run), "build": build, "device": "cpu"}
                file.write(json.dumps(row | breakdown.row()) + "\n")
                file.flush()
                os.fsync(file.fileno())
                print(name, run, breakdown.compute, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    given = parser.parse_args()
    main(given.rows)
