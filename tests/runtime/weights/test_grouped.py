"""Grouped products of a chunk's experts against each pair's own, in Triton's interpreter."""

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.runtime.weights import launch, layout
from kvpareto.runtime.weights.awq_format import round_to_nearest
from kvpareto.runtime.weights.grouped import products
from kvpareto.runtime.weights.layout import Packed, Packed4, Packed8

DEVICE = "cpu" if launch.INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(),
        reason="needs a GPU, or TRITON_INTERPRET=1",
    ),
]
# The interpreter cuts fp32 to bf16 where a GPU rounds.
TOLERANCE = {torch.bfloat16: 2**-7 if launch.INTERPRETED else 4e-3, torch.float16: 5e-4}


def stack_of(bits: int, experts: int, inputs: int, out: int, group: int = 128) -> Packed:
    members = []
    for seed in range(experts):
        weight = torch.randn(out, inputs, generator=torch.Generator().manual_seed(seed))
        if bits == 8:
            members.append(layout.quantize8(weight))
        else:
            members.append(layout.from_awq(round_to_nearest(weight, group)))
    parts = ("words", "scales") if bits == 8 else ("words", "zeros", "scales")
    stacked = [torch.stack([getattr(m, part) for m in members]).to(DEVICE) for part in parts]
    return Packed8(*stacked) if bits == 8 else Packed4(*stacked)


def choices(tokens: int, k: int, experts: int, seed: int = 0) -> torch.Tensor:
    """k different experts a token, expert 1 by all, the last by none."""
    make = torch.Generator().manual_seed(seed)
    rest = torch.stack([torch.randperm(experts - 2, generator=make)[:k] for _ in range(tokens)])
    rest = torch.where(rest >= 1, rest + 1, rest)
    rest[:, 0] = 1
    return rest.to(DEVICE)


def exact(x: torch.Tensor, members: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    k = chosen.numel() // len(x)
    flat = chosen.reshape(-1)
    rows = [x[p // k].double() @ members[int(e)].double() for p, e in enumerate(flat)]
    return torch.stack(rows)


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


@pytest.mark.parametrize(
    ("bits", "group", "tokens", "k", "experts", "inputs", "out", "dtype"),
    [
        (4, 128, 70, 2, 5, 256, 136, torch.bfloat16),
        (4, 128, 9, 1, 3, 128, 64, torch.float16),
        (4, 32, 23, 2, 4, 128, 40, torch.float16),
        (4, 64, 23, 2, 4, 256, 40, torch.bfloat16),
        (8, 0, 70, 3, 6, 256, 136, torch.bfloat16),
        (8, 0, 33, 2, 4, 140, 24, torch.float16),  # inputs that fill no block of 128
        (16, 0, 33, 2, 4, 140, 24, torch.float16),
        (16, 0, 40, 2, 9, 128, 136, torch.bfloat16),
    ],
    ids=lambda x: str(x),
)
def test_each_pair_meets_its_own_expert(
    bits: int,
    group: int,
    tokens: int,
    k: int,
    experts: int,
    inputs: int,
    out: int,
    dtype: torch.dtype,
) -> None:
    make = torch.Generator().manual_seed(7)
    x = torch.randn(tokens, inputs, generator=make).to(dtype).to(DEVICE)
    x[:, 3] *= 50
    bias = torch.randn(experts, out, generator=make).to(dtype).to(DEVICE)
    chosen = choices(tokens, k, experts)
    order = products.sorted_pairs(chosen, experts)
    if bits == 16:
        plain = torch.randn(experts, out, inputs, generator=make).to(dtype).to(DEVICE)
        members = plain.mT
        found = products.product(x, members, bias, order)
    else:
        stack = stack_of(bits, experts, inputs, out, group or 128)
        members = torch.stack([stack.member(e).dequantized(torch.float32) for e in range(experts)])
        found = products.product(products.ordered(x, stack), stack, bias, order)
    want = exact(x, members, chosen) + bias[chosen.reshape(-1)].double()
    assert error(found, want) < TOLERANCE[dtype]


def test_a_tile_of_every_height_gives_the_same() -> None:
    stack = stack_of(8, 4, 128, 32)
    x = torch.randn(150, 128, generator=torch.Generator().manual_seed(1)).half().to(DEVICE)
    order = products.sorted_pairs(choices(150, 2, 4), 4)
    put = products.ordered(x, stack)
    results = [
        products.product(put, stack, None, order, products.TilePlan(rows, 32, 4, 2))
        for rows in (16, 64, 128)
    ]
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=2e-3, atol=2e-3)


def test_tiles_are_as_high_as_an_even_share() -> None:
    heights = [products.tile_plan(pairs, 64).rows for pairs in (65, 1024, 1025, 6144, 98304)]
    assert heights == [16, 16, 32, 128, 128]


def test_results_of_a_token_are_weighed_in_fp32() -> None:
    make = torch.Generator().manual_seed(2)
    y = torch.randn(3 * 5, 70, generator=make).half().to(DEVICE)
    weights = torch.rand(5, 3, generator=make).to(DEVICE)
    out = torch.empty(5, 70, dtype=torch.float16, device=DEVICE)
    products.combined(y, weights, out)
    want = (y.view(5, 3, 70).float() * weights[:, :, None]).sum(1)
    torch.testing.assert_close(out.float(), want, rtol=1e-3, atol=1e-3)
