"""llama.cpp on NVIDIA cards: its own buffers, the driver's total, and seconds, row by row.

    python benchmarks/llama_cpp/cuda.py write FOLDER
    python benchmarks/llama_cpp/cuda.py run FOLDER llama-server rows.jsonl [first|second|both|host]

Each shape of profiles/llama_cpp/shapes_cuda.json is a GGUF file with random weights in FOLDER. A
run is a llama-server with the flags that a plan prints, one prompt and 64 tokens; a thread asks the
driver twenty times a second what each card holds, and the row keeps the most beside what it held
before. `first` and `second` are runs on one card each, which may go on side by side; `both` takes
two cards; `host` runs have layers or experts in host memory. Needs `gguf` and `nvidia-ml-py`.
"""

import argparse
import json
import os
import random
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kvpareto import profiles
from kvpareto.calibration.llama_cpp.random_models import write_model
from kvpareto.calibration.llama_cpp.start import run_binary
from kvpareto.planner.engines.llama_cpp.run_settings import RunSettings

SHAPES = json.loads(profiles.read("llama_cpp/shapes_cuda.json"))
PREDICT = 64


def _run(shape: str, prompt: int, more: str = "", **settings: Any) -> tuple[Any, ...]:
    return shape, prompt, more, RunSettings(**settings)


ON_ONE = [
    _run("llama-8b-q4", 4000, context=8192),
    _run("llama-8b-q4", 8000, context=32768, keys="q8_0", values="q8_0"),
    _run("llama-8b-q4", 8000, context=32768, micro_batch=1024, keys="q8_0", values="q5_1"),
    _run("llama-8b-q4", 8000, context=16384, micro_batch=2048, keys="q4_0", values="q4_0"),
    _run("llama-8b-q4", 16000, context=131072),
    _run("qwen2-half-f16", 1000, context=4096, sequences=4),
    _run("qwen2-half-f16", 1000, context=32768, keys="iq4_nl", values="iq4_nl"),
    _run("qwen2-half-f16", 2000, context=8192, flash=False),
    _run("gemma3-4b-q8", 1000, context=16384),
    _run("gemma3-4b-q8", 8000, context=32768, micro_batch=1024, keys="q8_0", values="q8_0"),
    _run("gpt-oss-half-mxfp4", 1000, context=16384, micro_batch=2048),
    _run("qwen3-moe-q4", 8000, context=32768, keys="q8_0", values="q8_0"),
    _run("mla-f16", 1000, context=16384),
    _run("llama-heads-of-80-f16", 4000, context=8192, keys="q8_0", values="q8_0"),
    _run("qwen2-half-f16", 500, context=1024, micro_batch=128),
]
ON_TWO = [
    _run("llama-8b-q4", 4000, "--tensor-split 3,1", context=16384),
    _run("llama-8b-q4", 4000, "--tensor-split 1,1", context=16384, keys="q8_0", values="q8_0"),
    _run("qwen3-moe-q4", 4000, "--tensor-split 2,1", context=8192, micro_batch=1024),
    _run("gemma3-4b-q8", 4000, "--tensor-split 1,2", context=8192),
]
WITH_HOST = [
    _run("llama-8b-q4", 500, "-ngl 20", context=8192),
    _run("qwen3-moe-q4", 500, "--n-cpu-moe 8", context=8192, keys="q5_1", values="q5_1"),
    _run("gpt-oss-half-mxfp4", 500, "--n-cpu-moe 6", context=8192),
    _run("qwen2-half-f16", 500, "-ngl 12", context=8192),
    _run("qwen2-half-f16", 2000, "-ngl 0", context=8192),
    _run("llama-8b-q4", 2000, "-ngl 20 --tensor-split 1,1", context=8192),
]
PARTS = {"first": ON_ONE[::2], "second": ON_ONE[1::2], "both": ON_TWO, "host": WITH_HOST}


class Watch:
    """The most that each card's memory held while the block ran, in bytes."""

    def __init__(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml = pynvml
        self.cards = [
            pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())
        ]
        self.name = pynvml.nvmlDeviceGetName(self.cards[0])
        self.driver = pynvml.nvmlSystemGetDriverVersion()

    def __enter__(self) -> "Watch":
        self.before = self._used()
        self.most = list(self.before)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _used(self) -> list[int]:
        return [int(self._nvml.nvmlDeviceGetMemoryInfo(card).used) for card in self.cards]

    def _watch(self) -> None:
        while not self._ends.wait(0.05):
            self.most = [max(pair) for pair in zip(self.most, self._used(), strict=True)]


def flags_of(model: Path, run: RunSettings, more: str) -> list[tuple[str, str | None]]:
    """As a plan prints them; `more` replaces -ngl or is added."""
    words = more.split()
    extra = dict(zip(words[::2], words[1::2], strict=True))
    flags: dict[str, str | None] = {
        "-m": str(model),
        "-c": str(run.total_context),
        "-ngl": "999",
        "-ctk": run.keys,
        "-ctv": run.values,
        "-fa": "on" if run.flash else "off",
        "-ub": str(run.micro_batch),
        "-np": str(run.sequences),
        **extra,
    }
    return list(flags.items())


def measure(folder: Path, binary: Path, out: Path, part: str) -> None:
    """One row at a time, on disk before the next begins."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    draw = random.Random(0)
    for shape, length, more, run in PARTS[part]:
        alone = "1" if part == "second" and len(Watch().cards) > 1 else "0"
        os.environ["CUDA_VISIBLE_DEVICES"] = "0,1" if "tensor-split" in more else alone
        prompts = [[draw.randrange(300, 2000) for _ in range(length)] for _ in range(3)]
        watch, started = Watch(), time.time()
        row: dict[str, Any] = {
            "shape": shape, "run": asdict(run), "flags": more, "prompt": length,
            "device": watch.name, "driver": watch.driver, "part": part,
        }  # fmt: skip
        try:
            with watch:
                reading = run_binary(
                    binary, flags_of(folder / f"{shape}.gguf", run, more), prompts, PREDICT, 60
                )
            row |= reading.breakdown.row() | {"ttft": reading.ttft, "tpot": reading.tpot}
        except Exception as error:  # a row that fails must not cost the others
            row["failed"] = str(error)[:400]
        row |= {"before": watch.before, "most": watch.most, "took": round(time.time() - started, 1)}
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({k: row.get(k) for k in ("shape", "failed", "compute", "most", "took")}))


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, entry in SHAPES.items():
        write_model(entry["config"], folder / f"{name}.part", weights=entry["weights"])
        (folder / f"{name}.part").rename(folder / f"{name}.gguf")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    for step in ("write", "run"):
        steps.add_parser(step).add_argument("folder", type=Path)
    running = steps.choices["run"]
    running.add_argument("server", type=Path)
    running.add_argument("rows", type=Path)
    running.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all where none is named")
    given = parser.parse_args()
    if strange := set(getattr(given, "parts", ())) - set(PARTS):
        parser.error(f"no part is called {min(strange)}")
    if given.step == "write":
        write(given.folder)
    else:
        for part in given.parts or list(PARTS):
            measure(given.folder, given.server, given.rows, part)
