"""Attention over packed KV on a GPU: one token and a chunk, beside the best bf16 attention.

    python benchmarks/bench_attention.py [--tokens 131072] [--results benchmarks/results/…jsonl]

One layer of 32 query and 8 KV heads of 128 channels unless told otherwise. Correctness first:
no format is timed whose output is not within tolerance of the reference. One token is timed as
replays of a CUDA graph over several caches in turn, together larger than the L2, so that each
read comes from device memory; chunks as single calls, whose own traffic flushes it, also by the
16-bit way where 8 bits are taken (`ms_16_bits`). Ratios are to torch's attention on bf16 tensors in
the same run.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_runtime import environment
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from triton.testing import do_bench

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.formats.kv_format import KVFormat
from kvpareto.runtime import kernels, reference
from kvpareto.runtime.cache.layer_state import Clock, LayerState
from kvpareto.runtime.kernels import triton_attend
from kvpareto.runtime.kernels.eight_bits import chunk8

TOLERANCE = 1e-2
DECODE = (
    "k16v16", "k8v8-g64", "k8v4-g64", "k4v4-g32", "k4v4-g64", "k4v4-g128", "k4v4-g64+res128",
    "k4v4-kc-g64", "k4v4-kc128-g64", "k4v2-g64", "k2v2-g32", "k2v2-g64",
)  # fmt: skip
CHUNK = ("k16v16", "k8v8-g64", "k4v4-g64", "k4v4-kc-g64", "k2v2-g64")
CHUNKS = (256, 1024, 4096, 8192)
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


def random_state(text: str, heads: int, dim: int, tokens: int) -> LayerState:
    """A full cache of random codes and pairs: what attention reads, without quantizing it first."""
    state = LayerState.allocate(
        KVFormat.of(Configuration.parse(f"w16a16-{text}"), 0), batch=1, heads=heads, key_dim=dim,
        value_dim=dim, tokens=tokens, window=None, clock=Clock(1, torch.device("cuda")),
        dtype=torch.bfloat16,
    )  # fmt: skip
    for side in (state.key, state.value):
        if side.scale is None:
            side.values.normal_()
            continue
        side.values.random_(0, 256)
        side.scale[..., 0].uniform_(1.5 / 2**side.form.bits, 4.5 / 2**side.form.bits)
        side.scale[..., 1].normal_(-2, 0.3)
        if side.residual is not None:
            side.residual.normal_()
    state.clock.advance(tokens)
    return state


def milliseconds(calls: list[Callable[[], Any]], *, graph: bool) -> float:
    """Median time of one of `calls`, run in turn."""

    def run() -> None:
        for call in calls:
            call()

    if graph:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            run()
        torch.cuda.synchronize()
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            run()
        return do_bench(captured.replay, warmup=30, rep=120, return_mode="median") / len(calls)
    return do_bench(run, warmup=20, rep=80, return_mode="median") / len(calls)


def error(measured: Tensor, expected: Tensor) -> float:
    gap = measured.double() - expected.double()
    return float(gap.norm() / expected.double().norm())


def copy_rate() -> float:
    """Bytes a second of a large device copy, reads and writes counted."""
    source = torch.randint(0, 255, (1 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / (milliseconds([lambda: target.copy_(source)], graph=False) * 1e-3)


def dense_decode(query: Tensor, heads: int, tokens: int) -> dict[str, float]:
    """Milliseconds of torch's attention of one token on bf16 keys and values, by backend."""
    shape = (1, heads, tokens, query.shape[3])
    pairs = [
        tuple(torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in "kv")
        for _ in range(2)
    ]
    calls = [
        lambda k=k, v=v: scaled_dot_product_attention(query, k, v, enable_gqa=True)
        for k, v in pairs
    ]
    times = {}
    for name, backend in BACKENDS.items():
        with sdpa_kernel(backend):
            times[name] = milliseconds(calls, graph=True)
    return times


def bench_decode(args: argparse.Namespace, rate: float, write: Callable[..., None]) -> None:
    dim, scaling = args.dim, args.dim**-0.5
    query = torch.randn(1, args.query_heads, 1, dim, device="cuda", dtype=torch.bfloat16)
    dense = dense_decode(query, args.heads, args.tokens)
    best = min(dense.values())
    write(what="decode", format="bf16 SDPA", backends=dense, ms=best, ratio=1.0)
    for text in args.decode or DECODE:
        copies = 2 if "16" in text.split("-")[0] else 4
        states = [random_state(text, args.heads, dim, args.tokens) for _ in range(copies)]
        expected = reference.attend(query.float(), states[0], scaling=scaling)
        off = error(kernels.attend(query, states[0], scaling=scaling), expected)
        row: dict[str, Any] = {"what": "decode", "format": text, "error": off}
        if off <= TOLERANCE:
            calls = [partial(kernels.attend, query, s, scaling=scaling) for s in states]
            ms, bytes_ = milliseconds(calls, graph=True), states[0].nbytes
            row |= {"ms": ms, "ratio": best / ms, "bytes": bytes_}
            row["copy_fraction"] = bytes_ / (ms * 1e-3) / rate
        write(**row)
        del states
    state = random_state("k4v4-g64", args.heads, dim, args.tokens)
    general = partial(triton_attend.attend, query, state, scaling=scaling)
    ms = milliseconds([general], graph=False)
    write(what="decode", format="k4v4-g64 (general Triton)", ms=ms, ratio=best / ms)
    state.clock.device.fill_(256)
    ms = milliseconds([partial(kernels.attend, query, state, scaling=scaling)] * 4, graph=True)
    write(what="decode", format="k4v4-g64 (256 tokens held)", ms=ms)


def bench_chunks(args: argparse.Namespace, write: Callable[..., None]) -> None:
    dim, scaling = args.dim, args.dim**-0.5
    shape = (1, args.heads, args.tokens, dim)
    key, value = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in "kv")
    for n in CHUNKS:
        query = torch.randn(1, args.query_heads, n, dim, device="cuda", dtype=torch.bfloat16)
        mask = causal_lower_right(n, args.tokens)

        def one_shot(q: Tensor = query, m: Any = mask) -> Tensor:
            return scaled_dot_product_attention(q, key, value, m, enable_gqa=True)

        dense = milliseconds([one_shot], graph=False)
        write(what="chunk", chunk=n, format="bf16 flash, one shot", ms=dense, ratio=1.0)
        for text in args.chunk or CHUNK:
            state = random_state(text, args.heads, dim, args.tokens)
            few = query[:, :, -64:]  # the reference of all queries would take long
            expected = reference.attend(few.float(), state, scaling=scaling)
            attended = kernels.attend(query, state, scaling=scaling)
            row: dict[str, Any] = {"what": "chunk", "chunk": n, "format": text}
            row["error"] = error(attended[:, :, -64:], expected)
            if row["error"] <= TOLERANCE:
                call = partial(kernels.attend, query, state, scaling=scaling)
                row["ms"] = milliseconds([call], graph=False)
                row["ratio"] = dense / row["ms"]
                takes = chunk8.faster
                chunk8.faster = lambda *_: False
                row["ms_16_bits"] = milliseconds([call], graph=False)
                chunk8.faster = takes
            write(**row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("tokens", 131072), ("query-heads", 32), ("heads", 8), ("dim", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--decode", nargs="*", help="formats to time one token of")
    parser.add_argument("--chunk", nargs="*", help="formats to time chunks of")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/attention.jsonl"))
    args = parser.parse_args()
    torch.manual_seed(0)
    around = environment()
    shape = {"tokens": args.tokens, "query_heads": args.query_heads, "heads": args.heads}
    args.results.parent.mkdir(parents=True, exist_ok=True)

    def write(**row: Any) -> None:
        with args.results.open("a") as file:
            file.write(json.dumps(row | shape | {"dim": args.dim} | around) + "\n")
        cells = [f"{row['what']:6}", f"{row.get('chunk', 1):5}", f"{row['format']:28}"]
        for name, form in (("ms", "8.4f"), ("ratio", "6.2f"), ("copy_fraction", "5.2f")):
            cells.append(f"{name} {row[name]:{form}}" if name in row else "")
        print("  ".join(cells), f"error {row['error']:.1e}" if "error" in row else "", flush=True)

    rate = copy_rate()
    write(what="copy", format=f"{rate / 1e12:.3f} TB/s", bytes_per_second=rate)
    bench_decode(args, rate, write)
    bench_chunks(args, write)


if __name__ == "__main__":
    main()
