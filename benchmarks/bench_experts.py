"""Packed experts of a chunk on a GPU: all in one kernel, one after another, and in 16 bits.

    python benchmarks/bench_experts.py --results benchmarks/results/experts.jsonl [--plans]

One layer's experts at published shapes, tokens routed evenly at random. Correctness first: the
result is held to each token's experts by the library's products. Beside the grouped kernel: the
experts one after another, each dequantized (what a chunk did before), and torch's grouped product
of 16-bit matrices that are there already. `--plans` times other tiles.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import silu

sys.path.insert(0, str(Path(__file__).parent))
from bench_runtime import environment, relative_error

from kvpareto.runtime.weights.experts import QuantizedExperts
from kvpareto.runtime.weights.grouped import products
from kvpareto.runtime.weights.layout import Packed
from kvpareto.runtime.weights.random import random4, random8
from kvpareto.runtime.weights.workspace import Workspace

SHAPES = {
    # name: (experts, of a token, hidden size, width)
    "DeepSeek-V2-Lite": (64, 6, 2048, 1408),
    "GLM-4.7-Flash": (64, 4, 2048, 1536),
    "Qwen3-30B-A3B": (128, 8, 2048, 768),
    "Kimi-Linear-48B-A3B": (256, 8, 2304, 1024),
}
TOLERANCE = 1e-2


class Inner(torch.nn.Module):
    """What a transformers experts module still has when its stacks are packed."""

    has_gate = True

    def _apply_gate(self, rows: torch.Tensor) -> torch.Tensor:
        gate, up = rows.chunk(2, dim=-1)
        return silu(gate) * up


def timed(call: Any, repeats: int = 20) -> float:
    """Microseconds of a call, the middle one, after two that warm up."""
    for _ in range(2):
        call()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(1e3 * begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def stacks(bits: int, experts: int, hidden: int, width: int) -> dict[str, Packed]:
    make = torch.Generator(device="cuda").manual_seed(0)
    random = random4 if bits == 4 else random8
    return {
        "first": random((experts,), hidden, 2 * width, make),
        "down": random((experts,), width, hidden, make),
    }


def in_16_bits(
    x: torch.Tensor, order: products.SortedPairs, k: int, first: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """Torch's grouped products over sorted rows, matrices [experts, in, out]."""
    product = getattr(torch.nn.functional, "grouped_mm", None) or torch._grouped_mm
    rows = product(x[order.pairs // k], first, offs=order.ends)
    gate, up = rows.chunk(2, dim=-1)
    return product(silu(gate) * up, down, offs=order.ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--bits", nargs="+", type=int, default=[4, 8])
    parser.add_argument("--tokens", nargs="+", type=int, default=[64, 512, 1024, 4096])
    parser.add_argument("--plans", action="store_true")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--commit", help="what is measured, where git cannot say")
    args = parser.parse_args()
    env = environment(args.commit)
    for name in args.shapes:
        experts, k, hidden, width = SHAPES[name]
        for bits in args.bits:
            packed = stacks(bits, experts, hidden, width)
            scratch = Workspace(2 * width * hidden, "cuda")
            module = QuantizedExperts(Inner(), packed, scratch)
            first, down = (
                torch.stack([s.member(e).dequantized(torch.bfloat16) for e in range(experts)])
                for s in packed.values()
            )
            for tokens in args.tokens:
                make = torch.Generator(device="cuda").manual_seed(tokens)
                x = torch.randn(tokens, hidden, device="cuda", generator=make).bfloat16()
                scores = torch.rand(tokens, experts, device="cuda", generator=make)
                weights, chosen = scores.topk(k, dim=-1)
                error = relative_error(
                    module(x, chosen, weights), module._one_by_one(x, chosen, weights)
                )
                if not error < TOLERANCE:
                    sys.exit(f"{name} {bits} bits: {error:.1e} off: nothing is timed")
                order = products.sorted_pairs(chosen, experts)
                flops = 6 * tokens * k * hidden * width
                row: dict[str, Any] = {
                    "shape": name, "bits": bits, "tokens": tokens, "error": error,
                    "grouped_us": timed(lambda: module(x, chosen, weights)),  # noqa: B023
                    "in_turn_us": timed(lambda: module._one_by_one(x, chosen, weights), 3),  # noqa: B023
                    "sixteen_us": timed(lambda: in_16_bits(x, order, k, first, down)),  # noqa: B023
                }  # fmt: skip
                row["tflops"] = flops / row["grouped_us"] / 1e6
                ways = ("grouped", "in_turn", "sixteen")
                told = "".join(f"{row[f'{way}_us']:8.0f} us {way}," for way in ways)
                rate = f"{row['tflops']:.0f} TFLOP/s, error {error:.1e}"
                print(f"{name} w{bits} {tokens} tokens: {told} {rate}", flush=True)
                if args.plans:
                    row["plans"] = plans(x, packed["first"], order)
                    best = sorted(row["plans"].items(), key=lambda item: item[1])[:6]
                    print("   first:", *(f"{plan} {us:.0f}" for plan, us in best), flush=True)
                row |= env | {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
                if args.results:
                    with args.results.open("a") as file:
                        file.write(json.dumps(row) + "\n")


def plans(x: torch.Tensor, stack: Packed, order: products.SortedPairs) -> dict[str, float]:
    """Microseconds of the first product by rows.columns.warps.stages of a program."""
    put = products.ordered(x, stack)
    found = {}
    mean = len(order) / stack.words.shape[0]
    for rows in (16, 32, 64, 128):
        if not mean / 2 <= rows <= 4 * mean:
            continue
        for columns in (64, 128, 256):
            for warps in (4, 8):
                for stages in (2, 3, 4):
                    plan = products.TilePlan(rows, columns, warps, stages)
                    try:
                        us = timed(lambda: products.product(put, stack, None, order, plan), 8)  # noqa: B023
                    except Exception:
                        continue
                    found[f"{rows}.{columns}.{warps}.{stages}"] = us
    return found


if __name__ == "__main__":
    main()
