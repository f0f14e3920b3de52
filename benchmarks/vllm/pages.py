"""The plugin's kernels alone, over pages in random order: microseconds and bytes a second.

    python benchmarks/vllm/pages.py
    python benchmarks/vllm/pages.py --heads 4 --query-heads 32 --dim 128

Each shape is checked against the reference first, then a CUDA graph of twenty calls is
timed. vLLM itself is not needed.
"""

import argparse
from collections.abc import Callable

import torch

from kvpareto.runtime.kernels.paged import reference
from kvpareto.runtime.kernels.paged.decode_pages import PageDecoder
from kvpareto.runtime.kernels.paged.page_format import PageFormat
from kvpareto.runtime.kernels.paged.stage_pages import PADDING, rotate_rows, stage_pages
from kvpareto.runtime.kernels.paged.write_pages import write_pages

CACHES = ("int4_per_token_head", "int8_per_token_head")
BATCHES = (
    (1, 131_000), (8, 65_000), (16, 16_000), (64, 16_000), (256, 1_000), (256, 100), (4, 100),
    (48, 2_000), (48, 2_000, 16),
)  # fmt: skip
"""Sequences, tokens of each, and empty sequences behind them, with which vLLM pads a batch."""
PAGE = 16  # tokens
CALLS = 20  # of a graph
LONG = 131_072  # tokens that are staged
CHUNK = 8_192  # tokens of a prompt's piece


def main() -> None:
    """Print a line a cache and batch, then what a prompt's pieces take."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--query-heads", type=int, default=32)
    parser.add_argument("--dim", type=int, default=128)
    asked = parser.parse_args()
    print(torch.cuda.get_device_name())
    for cache in CACHES:
        form = PageFormat.of(cache, asked.dim)
        assert form is not None, f"heads of {asked.dim} channels are not kept as {cache}"
        for batch in BATCHES:
            print(_decoding(form, asked.heads, asked.query_heads, *batch), flush=True)
        print(_prompts(form, asked.heads, asked.query_heads), flush=True)


def _pages(form: PageFormat, heads: int, sequences: int, length: int) -> tuple[torch.Tensor, ...]:
    """Pages of random tokens, and their table [sequences, pages] in random order."""
    each = -(-length // PAGE)
    shape = (sequences * each + 1, heads, PAGE, form.row_bytes)
    pages = torch.randint(0, 255, shape, dtype=torch.uint8, device="cuda")
    words, side = pages.view(torch.int32), form.side_bytes // 4
    words[..., side - 1] = words[..., 2 * side - 1] = torch.tensor(0.3).view(torch.int32)
    order = torch.randperm(sequences * each, device="cuda").int()
    return pages, order.view(sequences, each)


def _decoding(
    form: PageFormat, heads: int, queries: int, sequences: int, length: int, empty: int = 0
) -> str:
    pages, table = _pages(form, heads, sequences + empty, length)
    lengths = torch.full((sequences + empty,), length, dtype=torch.int32, device="cuda")
    lengths[sequences:] = 0
    query = torch.randn(len(lengths), queries, form.dim, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(query)
    decode = PageDecoder(form, heads, queries, PAGE, query.dtype, query.device)
    scaling = form.dim**-0.5
    decode(query, pages, table, lengths, out, scaling=scaling)
    truth = reference.attend(query[:1].float(), pages, table[0], length, form, scaling=scaling)
    error = float((out[:1].float() - truth).norm() / truth.norm())
    assert error < 1e-2, f"relative error {error:.1e}"
    taken = _microseconds(lambda: decode(query, pages, table, lengths, out, scaling=scaling))
    new = torch.randn(len(lengths), heads, form.dim, device="cuda", dtype=torch.bfloat16)
    slots = table[:, (length - 1) // PAGE].long() * PAGE + (length - 1) % PAGE
    slots[sequences:] = -1
    written = _microseconds(lambda: write_pages(pages, new, new, slots, form))
    more = {"scaling": scaling, "new": (new, new, slots)}
    step = _microseconds(lambda: decode(query, pages, table, lengths, out, **more))
    rate = sequences * length * heads * form.row_bytes / taken / 1e6
    beside = f" and {empty} empty" if empty else ""
    return (f"int{form.bits} {sequences} x {length}{beside}: decoding {taken:.1f} us, "
            f"{rate:.2f} TB/s; writing {written:.1f} us; "
            f"both in one {step:.1f} us; error {error:.1e}")  # fmt: skip


def _prompts(form: PageFormat, heads: int, queries: int) -> str:
    pages, table = _pages(form, heads, 1, LONG)
    key = torch.empty(LONG + PADDING, heads, form.dim, device="cuda", dtype=torch.bfloat16)
    value = torch.empty_like(key)
    lengths = torch.tensor([LONG], dtype=torch.int32, device="cuda")
    starts = torch.zeros(1, dtype=torch.int32, device="cuda")
    staged = _microseconds(
        lambda: stage_pages(pages, table, lengths, starts, key, value, LONG, form)
    )
    new = torch.randn(CHUNK, heads, form.dim, device="cuda", dtype=torch.bfloat16)
    slots = torch.randperm(LONG, device="cuda")[:CHUNK]
    written = _microseconds(lambda: write_pages(pages, new, new, slots, form))
    said = f"int{form.bits} prompts: staging {LONG} tokens {staged:.0f} us, "
    said += f"writing {CHUNK} {written:.0f} us"
    if form.rotated:
        asked = torch.randn(CHUNK, queries, form.dim, device="cuda", dtype=torch.bfloat16)
        turned = torch.empty_like(asked)
        there = _microseconds(lambda: rotate_rows(asked, turned))
        back = _microseconds(lambda: rotate_rows(turned, asked, back=True))
        said += f", turning {CHUNK} queries {there:.0f} and {back:.0f} us"
    return said


def _microseconds(call: Callable[[], object]) -> float:
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    graph.replay()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / CALLS * 1e3


if __name__ == "__main__":
    main()
