"""How long a plan takes: the whole cold process beside `import torch`, and the ranking alone.

    python benchmarks/bench_plan.py [--runs 9]

The two processes take turns, so that what else the machine does slows both alike; medians and
their ratio are printed, with the bars they are held against. Exits with 1 where a bar is missed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.search.recommend import Request, recommend
from kvpareto.planner.workload import Workload

MODEL, BUDGET, CONTEXT = "Qwen/Qwen2.5-7B-Instruct", "12GB", "32k"
PLAN = ["plan", "--model", MODEL, "--budget", BUDGET, "--context", CONTEXT, "--offline"]
COLD_S, RATIO, RANKING_S, CONFIGURATIONS = 0.300, 0.25, 0.100, 100_000


def timed(command: list[str]) -> float:
    """Wall seconds of one process, with compiled bytecode at hand as after `pip install`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def cold(runs: int) -> dict[str, float]:
    """Median seconds of each process, run in turns after one turn that is not counted."""
    python = sys.executable
    commands = {
        "kvpareto plan": [python, "-m", "kvpareto", *PLAN],
        "import torch": [python, "-c", "import torch"],
        "import numpy": [python, "-c", "import numpy"],
        "python": [python, "-c", "pass"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            took = timed(command)
            if turn:
                seconds[name].append(took)
    return {name: statistics.median(took) for name, took in seconds.items()}


def ranking(runs: int) -> tuple[int, float]:
    """Configurations considered, and median seconds from a model description to its plan."""
    request = Request(
        load_model(MODEL, offline=True),
        Workload(32_768),
        KVPARETO,
        12 * 10**9,
        find_gpu("RTX 4090"),
    )
    seconds = []
    for turn in range(runs + 1):
        began = time.perf_counter()
        plan = recommend(request)
        if turn:
            seconds.append(time.perf_counter() - began)
    return plan.considered, statistics.median(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    took = cold(runs)
    considered, rank = ranking(runs)
    plan, torch = took["kvpareto plan"], took["import torch"]
    load = os.getloadavg()[0]
    print(f"medians of {runs} runs, {os.cpu_count()} processors, load {load:.1f}")
    for name, seconds in took.items():
        print(f"  {name:<42} {1000 * seconds:8.0f} ms")
    checks = (
        ("whole `kvpareto plan`, cold", 1000 * plan, "ms", 1000 * COLD_S),
        ("of the time of `import torch`", plan / torch, "x", RATIO),
        (f"ranking {considered:,} configurations", 1000 * rank, "ms", 1000 * RANKING_S),
    )
    for name, value, unit, bar in checks:
        verdict = "ok" if value <= bar else "MISSED"
        print(f"  {name:<42} {value:8.2f} {unit:<2} bar {bar:g} {unit}: {verdict}")
    missed = [name for name, value, _, bar in checks if value > bar]
    return 1 if missed or considered < CONFIGURATIONS else 0


if __name__ == "__main__":
    sys.exit(main())
