"""Products with packed weights on a GPU: correctness, then time against 16-bit cuBLAS.

    python benchmarks/bench_weights.py [--out benchmarks/results/weights.jsonl]

Each product runs in a CUDA graph over copies beyond the GPU's cache: medians in microseconds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kvpareto.runtime.weights import cuda, launch
from kvpareto.runtime.weights.layout import Packed, Packed4
from kvpareto.runtime.weights.linear import multiply
from kvpareto.runtime.weights.random import random4, random8
from kvpareto.runtime.weights.workspace import Workspace

# (inputs, outputs) of the projections as they run: q, k, v joined; o; gate and up joined; down
SHAPES = {
    "llama-8b": [(4096, 6144), (4096, 4096), (4096, 28672), (14336, 4096), (4096, 14336)],
    "qwen2.5-3b": [(2048, 2560), (2048, 2048), (2048, 22016), (11008, 2048)],
}
ROWS = (1, 2, 4, 16, 32, 64, 256, 1024)
CACHE_MULTIPLE = 3 * 60_000_000  # bytes of weights in rotation: three times an H200's L2
EXPERTS = (128, 8, 2048, 768)  # Qwen3-30B-A3B: experts, chosen, hidden, width


def seconds(calls: Sequence[Callable[[], object]], replays: int = 12) -> float:
    """Median seconds of one call, all `calls` captured in one graph."""
    for call in calls[:2]:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = []
    for _ in range(replays):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / len(calls))
    return statistics.median(times[2:])


def copies(bits: int, inputs: int, out: int) -> list[Packed]:
    """Enough random weights to exceed the cache."""
    generator = torch.Generator("cuda").manual_seed(inputs + out)
    count = max(2, -(-CACHE_MULTIPLE * 8 // (bits * inputs * out)))
    make = random4 if bits == 4 else random8
    return [make((), inputs, out, generator) for _ in range(count)]


def plain_copies(inputs: int, out: int) -> list[torch.Tensor]:
    count = max(2, -(-CACHE_MULTIPLE // (2 * inputs * out)))
    return [torch.randn(out, inputs, device="cuda").bfloat16() * 0.02 for _ in range(count)]


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got.double() - want).norm() / want.norm()).item()


def cases() -> list[tuple[int, int, int, torch.dtype, int]]:
    """(bits, inputs, outputs, dtype, rows): every kernel, even and ragged shapes."""
    shapes = []
    for bits in (4, 8):
        for inputs, out in ((4096, 6144), (11008, 2048)):
            shapes += [
                (bits, inputs, out, torch.bfloat16, rows) for rows in (1, 2, 3, 7, 17, 64, 65)
            ]
        shapes += [(bits, 2048, 1032, torch.bfloat16, rows) for rows in (1, 5, 17)]
        shapes += [(bits, 4096, 6144, torch.float16, rows) for rows in (1, 2)]
    return shapes


def check(share: slice) -> None:
    """Every path against fp64 on the reference's own dequantization; ends the run if wrong."""
    generator = torch.Generator("cuda").manual_seed(1)
    worst = 0.0
    for bits, inputs, out, dtype, rows in cases()[share]:
        weight = (random4 if bits == 4 else random8)((), inputs, out, generator)
        workspace = Workspace(inputs * out, "cuda")
        workspace.scratch.fill_(0xFF)  # NaN
        x = torch.randn(rows, inputs, device="cuda", dtype=dtype)
        x[:, 5] *= 50
        y = multiply(x, weight, None, workspace)
        exact = x.double() @ weight.dequantized(torch.float32).double()
        error = relative_error(y, exact)
        worst = max(worst, error)
        if not error < 5e-3 or not torch.equal(y, multiply(x, weight, None, workspace)):
            raise SystemExit(f"wrong: w{bits} {inputs}x{out} {rows} rows {dtype}: {error}")
        scratch = workspace.weight(inputs, out, dtype)
        launch.dequantize(weight, scratch)
        if not torch.equal(scratch, weight.dequantized(dtype)):
            raise SystemExit(f"wrong: dequantized w{bits} {inputs}x{out} {dtype}")
    check_experts(generator)
    print(f"checks passed, largest relative error {worst:.1e}", flush=True)


def check_experts(generator: torch.Generator) -> None:
    experts, k, hidden, width = EXPERTS
    stack = random4((experts,), hidden, width, generator)
    x = torch.randn(2, hidden, device="cuda", dtype=torch.bfloat16)
    chosen = torch.randint(experts, (2 * k,), device="cuda")
    workspace = Workspace(hidden * width, "cuda")
    y = launch.one_row(x, stack, None, workspace, experts=chosen, rows=2 * k)
    for row in range(2 * k):
        want = x[row // k].double() @ stack.member(int(chosen[row])).dequantized(torch.float64)
        if not relative_error(y[row], want) < 5e-3:
            raise SystemExit(f"wrong: expert row {row}")


def bandwidth() -> float:
    """Bytes a second, read and written, of an elementwise kernel on a large tensor."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds([lambda: torch.mul(source, 2, out=target)] * 8)


def weight_bytes(weight: Packed) -> int:
    tensors = [weight.words, weight.scales]
    return sum(
        t.nbytes for t in ([*tensors, weight.zeros] if isinstance(weight, Packed4) else tensors)
    )


def measure_shape(inputs: int, out: int) -> list[dict[str, Any]]:
    """Times of one matrix for every number of rows, 16, 8 and 4 bits."""
    plain = plain_copies(inputs, out)
    packed = {bits: copies(bits, inputs, out) for bits in (8, 4)}
    workspace = Workspace(inputs * out, "cuda")
    entries = []
    for rows in ROWS:
        x = torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)
        entry: dict[str, Any] = {"inputs": inputs, "outputs": out, "rows": rows}
        entry["w16_us"] = seconds([partial(torch.nn.functional.linear, x, w) for w in plain]) * 1e6
        for bits, weights in packed.items():
            entry[f"w{bits}_bytes"] = weight_bytes(weights[0])
            for name, way in ways(bits, rows).items():
                calls = [partial(way, x, w, None, workspace) for w in weights]
                entry[f"w{bits}_{name}_us"] = seconds(calls) * 1e6
        entries.append(entry)
    return entries


def ways(bits: int, rows: int) -> dict[str, Callable[..., torch.Tensor]]:
    """What runs, and the ways it is chosen from."""
    by_way: dict[str, Callable[..., torch.Tensor]] = {"run": multiply}
    if rows <= 2:
        by_way["row"] = lambda x, weight, bias, _: cuda.cuda_row.product(x, weight, bias)
    four = {"stream": (1, 8), "parts": (5, 16), "sweep": (3, 16)}  # rows they take
    four |= {"tile": (1, 64), "wide": (1, 64)}
    for name, (fewest, most) in four.items():
        if bits == 4 and fewest <= rows <= most:
            by_way[name] = getattr(cuda, f"cuda_{name}").product
    if rows <= cuda.cuda_ring.MOST_ROWS:
        by_way["ring"] = cuda.cuda_ring.product
    if 1 < rows <= 64:
        by_way["triton"] = triton_tiles
    if rows >= 64:
        by_way["staged"] = staged
    return by_way


def triton_tiles(
    x: torch.Tensor, weight: Packed, bias: torch.Tensor | None, workspace: Workspace
) -> torch.Tensor:
    plan = launch.few_rows_plan(weight, x.shape[0])
    return launch.few_rows(x, weight, bias, workspace, plan=plan)


def staged(
    x: torch.Tensor, weight: Packed, bias: torch.Tensor | None, workspace: Workspace
) -> torch.Tensor:
    scratch = workspace.weight(*weight.shape, x.dtype)
    launch.dequantize(weight, scratch)
    return x @ scratch


def measure_torch_int4(inputs: int, out: int, rows: int) -> float:
    """torch's own int4 product, for comparison."""
    count = max(2, -(-CACHE_MULTIPLE * 2 // (inputs * out)))
    packs = []
    for _ in range(count):
        codes = torch.randint(0, 256, (out, inputs // 2), device="cuda", dtype=torch.uint8)
        packs.append(torch._convert_weight_to_int4pack(codes, 8))
    scales = torch.randn(inputs // 128, out, 2, device="cuda", dtype=torch.bfloat16)
    x = torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)
    return seconds([lambda w=w: torch._weight_int4pack_mm(x, w, 128, scales) for w in packs])


def measure_experts() -> dict[str, Any]:
    """One decode step's expert products of a mixture layer, 4 bits, against bf16 gathers."""
    experts, k, hidden, width = EXPERTS
    generator = torch.Generator("cuda").manual_seed(3)
    x = torch.randn(1, hidden, device="cuda", dtype=torch.bfloat16)
    inner = torch.randn(k, width, device="cuda", dtype=torch.bfloat16)
    choices = [torch.randperm(experts, device="cuda")[:k] for _ in range(16)]
    workspace = Workspace(hidden * 2 * width, "cuda")
    first = random4((experts,), hidden, 2 * width, generator)
    down = random4((experts,), width, hidden, generator)
    wide = [
        lambda c=c: launch.one_row(x, first, None, workspace, experts=c, rows=k) for c in choices
    ]
    narrow = [lambda c=c: launch.one_row(inner, down, None, workspace, experts=c) for c in choices]
    return {"experts": k, "first_us": seconds(wide) * 1e6, "down_us": seconds(narrow) * 1e6}


def compile_in_parallel(script: str, workers: int = 12) -> None:
    """Fill Triton's cache from several processes of `script`, each checking its share."""
    command = [sys.executable, script, "--worker"]
    started = [subprocess.Popen([*command, f"{i}/{workers}"]) for i in range(workers)]
    if any(process.wait() for process in started):
        raise SystemExit("a worker failed")


def share_of(worker: str) -> slice:
    """The share of a list that belongs to worker `index/count`."""
    index, count = map(int, worker.split("/"))
    return slice(index, None, count)


def environment() -> dict[str, Any]:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    import triton

    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": subprocess.run(query, capture_output=True, text=True).stdout.strip(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": os.environ.get("KVPARETO_COMMIT", "unknown"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": 0,
    }


def append(rows: list[dict[str, Any]], file: Path) -> None:
    """Add rows, each with its environment."""
    here = environment()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        for row in rows:
            stream.write(json.dumps({**row, "environment": here}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/weights.jsonl"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.worker:
        check(share_of(arguments.worker))
        return
    compile_in_parallel(__file__)
    check(slice(None))
    bandwidth()  # the first run brings the clocks up
    copy = bandwidth()
    rows: list[dict[str, Any]] = [{"kind": "copy", "bytes_per_s": copy}]
    for model, shapes in SHAPES.items():
        for inputs, out in shapes:
            for entry in measure_shape(inputs, out):
                rows.append({"kind": "product", "model": model, **entry})
                print(line(rows[-1], copy), flush=True)
    for count in (1, 16):
        entry = {"kind": "torch_int4", "inputs": 4096, "outputs": 14336, "rows": count}
        rows.append(entry | {"us": measure_torch_int4(4096, 14336, count) * 1e6})
    rows.append({"kind": "experts", **measure_experts()})
    print(*rows[-3:], f"copy {copy / 1e12:.2f} TB/s", sep="\n")
    append(rows, arguments.out)


def line(row: dict[str, Any], copy: float) -> str:
    """16 bits, then each way of 4 and 8 bits: time, and speed-up of the one that runs."""
    text = f"{row['inputs']}x{row['outputs']} rows {row['rows']}: w16 {row['w16_us']:.1f} us"
    for bits in (4, 8):
        run = row[f"w{bits}_run_us"]
        share = f"{row[f'w{bits}_bytes'] / (run * 1e-6) / copy:.0%}"
        text += f" | w{bits} {run:.1f} ({row['w16_us'] / run:.2f}x, {share} bw)"
        for way in ("row", "sweep", "tile", "ring", "triton", "staged"):
            if f"w{bits}_{way}_us" in row:
                text += f" {way} {row[f'w{bits}_{way}_us']:.1f}"
    return text


if __name__ == "__main__":
    main()
