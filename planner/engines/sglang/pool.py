"""SGLang's static memory: weights and a pool of tokens, of what is free before the model is loaded.

    pool = free x mem_fraction_static - weights - what else is resident

The rest, free x (1 - mem_fraction_static), is for activations and CUDA graphs. Without the flag it
is 512 MiB, 1.5 MiB for each token of a prefill chunk, 2 MiB for each sequence of the largest decode
graph, 128 MiB a card, 8 MiB for each prefill graph (1.5 GiB for latents), and 10 GiB at least on
cards of more than 60 GiB (sglang/srt/arg_groups/memory_hook.py of 0.5.23). A token takes
the same in every layer; pages are of one token.
"""

from ...engine import Interval
from ...hardware.gpus import Hardware
from ...models.spec import Attention, LatentAttention, ModelSpec
from ...units import GiB

VERSION = "0.5.23"
"""The release whose source the rules of this folder were read from. It was not run here."""
MIB = 2**20
PREFILL_GRAPHS = 58
"""Prefill graphs of the default sizes up to 8,192 tokens."""
LARGE, LARGE_RESERVE = 60 * 1024 * MIB, 10 * 1024 * MIB
OTHER = Interval(int(0.4 * GiB), int(0.1 * GiB), int(1.0 * GiB))
"""Resident beside the weights: NCCL, workspaces, tables. An estimate."""
AFTER_CAPTURE = int(1.5 * GiB)
"""Graphs that a pool sized after their capture must leave room for: the high end."""
DECODE_GRAPHS = ((20, 8, 8), (35, 48, 160), (60, 32, 160), (160, 256, 512), (10**6, 512, 512))
"""(GiB below, largest decode graph with fewer than four cards, with four and more)."""


def bytes_per_token(spec: ModelSpec, dtype: str) -> int:
    """Bytes of one token in the pool of one rank, whose `spec` it is."""
    element = 1 if dtype == "fp8" else 2
    total = 0
    for mixer, count in spec.mixer_counts:
        if isinstance(mixer, LatentAttention):
            total += count * (mixer.kv_rank + mixer.rope_dim) * element
        elif isinstance(mixer, Attention) and mixer.shares_kv_with is None:
            total += count * mixer.kv_heads * (mixer.head_dim + mixer.value_dim) * element
    return total


def reserve(spec: ModelSpec, gpu: Hardware, chunk: int, cards: int) -> int:
    """Bytes that the default leaves for activations and graphs."""
    largest = decode_graph(gpu, cards)
    latent = any(isinstance(m, LatentAttention) for m, _ in spec.mixer_counts)
    graphs = 2 * largest + (1536 if latent else 8 * PREFILL_GRAPHS)
    kept = int((512 + 1.5 * max(chunk, 2048) + 128 * cards + graphs) * MIB)
    return max(kept, LARGE_RESERVE) if gpu.memory_bytes > LARGE else kept


def decode_graph(gpu: Hardware, cards: int) -> int:
    """Sequences of the largest decode graph."""
    for below, few, many in DECODE_GRAPHS:
        if gpu.memory_bytes < below * GiB:
            return few if cards < 4 else many
    return DECODE_GRAPHS[-1][2]
