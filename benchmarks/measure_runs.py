"""Measure whole runs of the kvpareto engine: time, memory, and what the planner says beside them.

    python benchmarks/measure_runs.py runs.jsonl --seconds 300
    python benchmarks/measure_runs.py --plan-only             the runs, with predicted seconds

Random weights at real shapes (run_design.py), one GPU. Every run is `calibration.execution`'s: a
short prompt first, which compiles and captures, then one prefill and some decode steps that count.
Rows are appended with fsync as they are measured and carry their environment. A file that is there
already is gone on with: runs that it has, failed ones too, are not made again. Correctness is not
measured here.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from evidence import Key, RowFile, options
from run_design import Block, Run, architecture, design

from kvpareto.calibration.execution.memory_cap import prefer_expandable_segments
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpus import Hardware
from kvpareto.planner.latency.predict import predict
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.models.spec import Attention, ModelSpec

BUILD_S, RUN_S = 2.5, 1.2  # guesses: building a model; a run's captures, warm-up and steps
RESTARTS = "KVPARETO_RUNS_RESTARTED"
MOST_RESTARTS = 3  # after errors that leave the device useless to the process


@contextmanager
def sources(blocks: Iterable[Block]) -> Iterator[dict[str, str]]:
    """What each model is loaded from: its id, or a folder with the config it is run with."""
    with tempfile.TemporaryDirectory() as made:
        found = {}
        for model in dict.fromkeys(block.model for block in blocks):
            config = architecture(model)
            if config is None:
                found[model] = model
                continue
            path = Path(made) / model
            path.mkdir(parents=True)
            (path / "config.json").write_text(json.dumps(config))
            found[model] = str(path)
        yield found


def predicted(spec: ModelSpec, run: Run, gpu: Hardware) -> dict[str, Any]:
    """The planner's numbers before the run, to stand beside what is measured."""
    size = estimate(spec, run.config, run.workload, KVPARETO, gpu)
    seconds = predict(spec, run.config, run.workload, KVPARETO, gpu)
    assert seconds is not None
    return {
        "allocated_resident": size.allocated_resident,
        "allocated_peak": size.allocated_peak,
        "total": size.total,
        "total_low": size.total_low,
        "total_high": size.total_high,
        "ttft_s": seconds.ttft_s,
        "tpot_s": seconds.tpot_s,
    }


def key_of(row: dict[str, Any]) -> Key:
    """What was run; of a row that describes a model, only which."""
    return tuple(row.get(name) for name in ("model", "config", "context", "batch"))


def describe(rows: RowFile, model: str) -> None:
    """The config of a model that is not run as it is bundled goes before its rows."""
    config = architecture(model)
    if config is not None and (model, None, None, None) not in rows.done:
        rows.append({"model": model, "architecture": config})


def measure(
    blocks: list[Block],
    rows: RowFile,
    device: str,
    gpu: Hardware,
    seconds: float,
    commit: str | None,
) -> None:
    """Make the runs that `rows` lacks, as far as `seconds` go."""
    from kvpareto.calibration.execution.loaded_model import open_model

    began = time.monotonic()
    with sources(blocks) as where:
        specs = {model: load_model(source, offline=True) for model, source in where.items()}
        if device == "cuda":
            compile_ahead(blocks, specs)
            print(f"kernels compiled: {time.monotonic() - began:.1f} s", flush=True)
        for block in blocks:
            spec = specs[block.model]
            runs = [run for run in block.runs if _key(block, run) not in rows.done]
            if not runs or time.monotonic() - began > seconds:
                continue
            describe(rows, block.model)
            source, bits = where[block.model], block.weight_bits
            try:
                with open_model(
                    source, bits, device=device, random_weights=True, offline=True
                ) as opened:
                    print(f"{block.model} w{bits}: built in {opened.seconds:.1f} s", flush=True)
                    for run in runs:
                        left = seconds - (time.monotonic() - began)
                        expected = predict(spec, run.config, run.workload, KVPARETO, gpu)
                        if expected is None or RUN_S + expected.ttft_s > left:
                            continue
                        try:
                            rows.append(one_run(opened, block, run, gpu, commit))
                        except RuntimeError as error:  # outside of what a run's outcome covers
                            raise Useless(_crashed(block, run, error)) from error
            except Useless:
                raise
            except Exception as error:
                print(f"{block.model} w{bits} cannot be run: {error!r:.300}", flush=True)
    print(f"{len(rows.done)} runs in {time.monotonic() - began:.0f} s", flush=True)


def one_run(
    opened: Any, block: Block, run: Run, gpu: Hardware, commit: str | None
) -> dict[str, Any]:
    """One measured row."""
    from kvpareto.calibration.execution.run import execute
    from kvpareto.calibration.execution.run_record import Warmup

    began = time.monotonic()
    found = execute(opened, run.config, run.workload, warmup=Warmup.SHORT)
    row = found.model_dump(by_alias=True, exclude_none=True)
    row |= {"model": block.model, "predicted": predicted(opened.spec, run, gpu)}
    row["environment"] |= {} if commit is None else {"commit": commit}
    said = f"TTFT {found.ttft_s or 0:.3f} s ({row['predicted']['ttft_s']:.3f}), "
    said += f"TPOT {1e3 * (found.tpot_s or 0):.2f} ms ({1e3 * row['predicted']['tpot_s']:.2f}), "
    said += f"peak {found.allocated_peak or 0} ({row['predicted']['allocated_peak']})"
    if found.outcome != "ok":
        said = f"{found.outcome}: {found.reason}"
    took = time.monotonic() - began
    print(f"  {run.config} {run.workload.context}: {said}; {took:.1f} s", flush=True)
    if found.outcome == "crashed" and "CUDA error" in (found.reason or ""):
        raise Useless(row)
    return row


def _crashed(block: Block, run: Run, error: Exception) -> dict[str, Any]:
    """The row of a run that took its process's device with it."""
    names = dict(zip(("model", "config", "context", "batch"), _key(block, run), strict=True))
    return names | {"outcome": "crashed", "reason": f"{error!r:.200}"}


class Useless(Exception):
    """The device takes no more calls from this process; `args[0]` is the row that says why."""


def _key(block: Block, run: Run) -> Key:
    return block.model, str(run.config), run.workload.context, run.workload.batch


# --- kernels ------------------------------------------------------------------------------------


def compile_ahead(blocks: list[Block], specs: dict[str, ModelSpec]) -> None:
    """Compile the CUDA kernels of all formats side by side: one after another they would take
    longer than the runs."""
    import torch

    from kvpareto.runtime.cache.kv_cache import PackedCache
    from kvpareto.runtime.kernels import cuda_decode
    from kvpareto.runtime.kernels.cuda_stage import Stager

    device = torch.device("cuda")
    jobs: dict[tuple[str, Attention], tuple[ModelSpec, Attention, Configuration]] = {}
    for block in blocks:
        spec = specs[block.model]
        layers = tuple({layer.mixers: layer for layer in spec.layers}.values())
        for run in block.runs:
            config = replace(run.config, weight_bits=16, chunk=None)
            for layer in layers:
                (mixer,) = layer.mixers
                assert isinstance(mixer, Attention)  # the runtime has no other
                one = replace(spec, layers=(layer,)), mixer, config
                jobs.setdefault((str(config), mixer), one)

    def compile_one(spec: ModelSpec, mixer: Attention, config: Configuration) -> None:
        kind = torch.bfloat16
        with suppress(Exception):  # what fails here fails again in its run, and is recorded there
            cache = PackedCache(spec, config, tokens=256, batch=1, device=device, dtype=kind)
            cache.clock.place(1)
            (state,) = cache.states
            shape = 1, mixer.query_heads, 1, mixer.head_dim
            query = torch.zeros(shape, dtype=kind, device=device)
            Stager(state, kind)
            if cuda_decode.supports(state, query):
                cuda_decode.decode(query, state, scaling=1.0)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: compile_one(*job), jobs.values()))
    torch.cuda.synchronize()


# --- command line -------------------------------------------------------------------------------


def show(blocks: list[Block], gpu: Hardware) -> None:
    """Every run with its predicted seconds, and their sum."""
    total = 0.0
    with sources(blocks) as where:
        for block in blocks:
            spec = load_model(where[block.model], offline=True)
            total += BUILD_S
            for run in block.runs:
                seconds = predict(spec, run.config, run.workload, KVPARETO, gpu)
                assert seconds is not None
                total += RUN_S + 1.2 * seconds.ttft_s
                shape = f"{run.workload.context} x{run.workload.batch}"
                print(f"{total:6.0f} s  {block.model} {run.config} {shape}: {seconds.ttft_s:.2f} s")
    print(f"{sum(len(block.runs) for block in blocks)} runs, about {total:.0f} s")


def main() -> None:
    arguments = options(__doc__).parse_args()
    blocks = [block for block in design() if arguments.only.lower() in block.model.lower()]
    gpu = find_gpu(arguments.gpu)
    if arguments.plan_only or arguments.output is None:
        show(blocks, gpu)
        return
    prefer_expandable_segments()
    rows = RowFile(arguments.output, key_of)
    began = time.monotonic()
    try:
        measure(blocks, rows, arguments.device, gpu, arguments.seconds, arguments.commit)
    except Useless as error:
        rows.append(error.args[0])
        restarted = int(os.environ.get(RESTARTS, "0"))
        if restarted >= MOST_RESTARTS:
            sys.exit("the device fails again and again")
        left = arguments.seconds - (time.monotonic() - began)
        os.environ[RESTARTS] = str(restarted + 1)
        command = [*sys.argv, "--seconds", str(max(left, 0.0))]  # the last one counts
        os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main()
