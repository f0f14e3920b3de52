"""How little noise any rounding of single channels could leave, beside what maps leave now.

    python benchmarks/low_bit_bound.py MODEL [--text FILE]

Of a KV head, keys' second moments A under queries' B lose, rounded by itself in the directions of
A B, a share of tr(A B) that depends on each direction's size s_i^2 and its bits:

    all directions mixed evenly, b bits each (what +affine does)   c(b) (sum s)^2 / D
    directions apart, bits where they save most (no format here)   sum s_i^2 c(b_i)

with c(b) the error of the best b-bit table for normal values (Max 1960). Scales cost no bits here,
no direction is cut, moments are those of the very text: a bound on formats of this kind, not a
measurement. Values are read by the output projection. Means over layers and heads.
"""

import argparse
import heapq
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kvpareto import profiles
from kvpareto.calibration.measure.affine_maps import TOKENS, learn_moments
from kvpareto.calibration.measure.divergence import text_windows
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.runtime import load

MAX_TABLE = (1.0, 0.3634, 0.1175, 0.03454, 0.009497, 0.002499, 6.6e-4, 1.7e-4, 4.5e-5)
"""Error of b bits of a normal value, of its variance."""
RATES = (1.5, 1.75, 2.0, 2.25, 2.5, 3.0)


def sizes(written: Tensor, read: Tensor) -> Tensor:
    """s_i^2 [H, D] from large to small, of a sum of 1: eigenvalues of A^1/2 B A^1/2."""
    spread, axes = torch.linalg.eigh(written)
    root = (axes * spread.clamp(min=0).sqrt()[:, None]) @ axes.mT
    found = torch.linalg.eigvalsh(root @ read @ root).clamp(min=0).flip(-1)
    return found / found.sum(-1, keepdim=True)


def mixed(squares: Tensor, bits: int) -> float:
    """Share lost, mean over heads, where every direction gets `bits` bits."""
    share = squares.sqrt().sum(-1) ** 2 / squares.shape[-1]
    return float(MAX_TABLE[bits] * share.mean())


def apart(squares: Tensor, rate: float) -> float:
    """Share lost, mean over heads, where whole bits go to the directions they save most in,
    `rate` a direction in the mean."""
    losses = []
    for row in squares.tolist():
        bits = [0] * len(row)
        saved = [(-size * (MAX_TABLE[0] - MAX_TABLE[1]), at) for at, size in enumerate(row)]
        heapq.heapify(saved)
        for _ in range(int(rate * len(row))):
            _, at = heapq.heappop(saved)
            bits[at] += 1
            if (now := bits[at]) + 1 < len(MAX_TABLE):
                gain = row[at] * (MAX_TABLE[now] - MAX_TABLE[now + 1])
                heapq.heappush(saved, (-gain, at))
        losses.append(sum(size * MAX_TABLE[b] for size, b in zip(row, bits, strict=True)))
    return sum(losses) / len(losses)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="low_bit_bound", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--text", type=Path, help="by default the included prose")
    options = parser.parse_args(arguments)
    base = load(options.model, Configuration(), context=8, output=1, device="cpu", offline=True)
    prose = options.text.read_text() if options.text else profiles.read("calibration_text.md")
    assert base.tokenizer is not None  # a folder that is measured has one
    found = learn_moments(base, text_windows(base.tokenizer, prose, TOKENS, 1)[0]).values()
    for side, squares in (
        ("keys", torch.cat([sizes(each.keys, each.queries) for each in found])),
        ("values", torch.cat([sizes(each.values, each.reads) for each in found])),
    ):
        even = ", ".join(f"{b}: {mixed(squares, b):.4f}" for b in (2, 3, 4))
        best = ", ".join(f"{rate:g}: {apart(squares, rate):.4f}" for rate in RATES)
        print(f"{side}: mixed evenly {even}; apart {best}")


if __name__ == "__main__":
    main()
