"""What a card holds beside llama.cpp's own buffers: the driver, cuBLAS and a pool of scratch.

Measured on one H200 (profiles/llama_cpp/memory_cuda.jsonl; driver 580, CUDA 13.0, build 11434) as
what the driver said less what llama.cpp printed. Two numbers are of that card: the base, and
cuBLAS. The pool follows from the operations (ggml/src/ggml-cuda): activations of a product in
8-bit blocks or in 16 bits, and partial sums of the product's tiles. Other cards have intervals.
"""

from functools import lru_cache

from ...engine import Interval
from ...hardware.gpus import Hardware
from ...models.spec import Attention, DenseFFN, LatentAttention, ModelSpec, MoEFFN
from .parts import SpecKey
from .run_settings import RunSettings

GRANULE = 2**21
"""Bytes to which the driver rounds each buffer up."""
BEYOND_CONTEXT = 65_000_000
"""The base beyond a bare context of the same card (H200: 617.4 and 552.4 MB)."""
UNKNOWN_BASE = Interval(420_000_000, 150_000_000, 720_000_000)
"""Cards whose context nobody measured here: from small ones to those of data centres."""
CUBLAS = Interval(103_000_000, 40_000_000, 140_000_000)
"""cuBLAS, once a matrix of 16 or 32 bits is multiplied: a router's is."""
TILE_SUMS = 8_650_000
"""Partial sums: 128 x 128 float32 for each of 132 multiprocessors."""
UNIFIED_CONTEXT = Interval(120_000_000, 20_000_000, 300_000_000)
"""Metal; no run of ours."""
EXACT = 0.005
"""Relative width of the base where the card's context is measured."""


def card_overhead(
    spec: ModelSpec, run: RunSettings, wide: bool, hardware: Hardware | None
) -> Interval:
    """Bytes beside weights, cache and compute buffer. `wide`: weights of 16 bits."""
    if hardware is not None and hardware.unified:
        return UNIFIED_CONTEXT
    base = UNKNOWN_BASE
    measured = None if hardware is None else hardware.measured_context_bytes
    if measured is not None:
        expected = measured + BEYOND_CONTEXT
        base = Interval(expected, round(expected * (1 - EXACT)), round(expected * (1 + EXACT)))
    extra = pool_bytes(spec, run, wide) + 3 * GRANULE // 2  # three buffers, half a granule each
    ends = [base.expected + extra, base.low + extra // 2, base.high + extra + 3 * GRANULE]
    if wide or _widths(SpecKey(spec))[2]:
        known = measured is not None
        ends[0] += CUBLAS.expected
        ends[1] += round(0.95 * CUBLAS.expected) if known else CUBLAS.low
        ends[2] += round(1.05 * CUBLAS.expected) if known else CUBLAS.high
    return Interval(*ends)


def pool_bytes(spec: ModelSpec, run: RunSettings, wide: bool) -> int:
    """Scratch of the largest product of a full pass, in whole granules."""
    tokens = run.pass_tokens
    inputs, outputs, rows = _widths(SpecKey(spec))
    if wide:
        most = 2 * tokens * (inputs + outputs)
        if rows:
            most = max(most, 4 * tokens * rows * 2)
    else:
        most = max(tokens * inputs, tokens * rows) * 9 // 8 + TILE_SUMS
    if run.key_format.block > 1 or run.value_format.block > 1:
        most += GRANULE
    return -(-most // GRANULE) * GRANULE


@lru_cache(maxsize=16)
def _widths(key: SpecKey) -> tuple[int, int, int]:
    """Widest input and output of a product, and inputs of a token's experts together."""
    spec = key.spec
    inputs = outputs = spec.hidden
    rows = 0
    for layer in spec.layers:
        ffn = layer.ffn
        if isinstance(ffn, DenseFFN):
            inputs, outputs = max(inputs, ffn.width), max(outputs, ffn.width)
        elif isinstance(ffn, MoEFFN):
            rows = max(rows, ffn.top_k * max(spec.hidden, ffn.width))
        for mixer in layer.mixers:
            if isinstance(mixer, Attention | LatentAttention):
                inputs = max(inputs, mixer.query_heads * mixer.value_dim)
    return inputs, outputs, rows
