"""Bytes of llama.cpp's caches: rows of every cell, in blocks of the types asked for.

A layer's K is one tensor of (KV heads x head) channels by cells, and its V another; a row is whole
blocks. Cells are allocated at the start, all of them. MLA keeps the latent and the rotary key as
one row of K and no V. Recurrent layers keep float32 states of each sequence. Layers that read
another layer's cache keep none. Sources: src/llama-kv-cache.cpp, src/llama-memory-recurrent.cpp.
"""

from ...light_dataclass import dataclass
from ...models.spec import (
    Attention,
    CompressedAttention,
    LatentAttention,
    Mixer,
    ModelSpec,
    RecurrentState,
)
from .run_settings import RunSettings


@dataclass(frozen=True, slots=True)
class CacheBytes:
    """Bytes of all sequences."""

    keys: int
    values: int
    states: int

    @property
    def total(self) -> int:
        return self.keys + self.values + self.states


def cache_bytes(spec: ModelSpec, run: RunSettings) -> CacheBytes:
    """Keys, values and states of the whole model."""
    keys = values = states = 0
    for mixer, count in spec.mixer_counts:
        one = mixer_bytes(mixer, spec, run)
        keys += count * one.keys
        values += count * one.values
        states += count * one.states
    return CacheBytes(keys, values, states)


def mixer_bytes(mixer: Mixer, spec: ModelSpec, run: RunSettings) -> CacheBytes:
    """What one layer keeps."""
    streams = 1 if run.unified else run.sequences
    if isinstance(mixer, RecurrentState):
        kept = mixer.state + kept_inputs(mixer)
        return CacheBytes(0, 0, 4 * kept * run.sequences)
    if isinstance(mixer, CompressedAttention):
        return CacheBytes(0, 0, 0)
    cells = streams * run.cells(run.slides(mixer, spec), spec)
    if isinstance(mixer, LatentAttention):
        return CacheBytes(cells * run.key_format.nbytes(mixer.kv_rank + mixer.rope_dim), 0, 0)
    if isinstance(mixer, Attention) and mixer.shares_kv_with is not None:
        return CacheBytes(0, 0, 0)
    return CacheBytes(
        cells * run.key_format.nbytes(mixer.kv_heads * mixer.head_dim),
        cells * run.value_format.nbytes(value_width(mixer, spec, run)),
        0,
    )


def value_width(mixer: Attention, spec: ModelSpec, run: RunSettings) -> int:
    """Channels of a row of V: without flash attention V is stored by channels, and every layer has
    as many as the widest (llama_kv_cache: n_embd_v_gqa_max)."""
    if run.flash:
        return mixer.kv_heads * mixer.value_dim
    return max(m.kv_heads * m.value_dim for m in run.attentions(spec))


def growth(spec: ModelSpec, run: RunSettings) -> int:
    """Bytes of one more token of every sequence, rounding aside: of layers that keep all."""
    total = 0
    for mixer, count in spec.mixer_counts:
        if isinstance(mixer, LatentAttention):
            total += count * run.key_format.nbytes(mixer.kv_rank + mixer.rope_dim)
        elif (
            isinstance(mixer, Attention)
            and mixer.shares_kv_with is None
            and not run.slides(mixer, spec)
        ):
            total += count * run.key_format.nbytes(mixer.kv_heads * mixer.head_dim)
            total += count * run.value_format.nbytes(mixer.kv_heads * mixer.value_dim)
    return total * run.sequences


def kept_inputs(mixer: RecurrentState) -> int:
    """Inputs of a convolution of k tokens that are kept: k - 1, where transformers keeps k."""
    channels = convolved_channels(mixer)
    kernel = mixer.conv // channels if channels else 0
    return channels * (kernel - 1) if kernel > 1 else mixer.conv


def convolved_channels(mixer: RecurrentState) -> int:
    """Channels of the convolution before a scan; 0 where there is none. A mixer's width is that of
    its projections: z and the step beside them for Mamba 2, z for a gated delta net."""
    values = mixer.heads * mixer.value_dim
    match mixer.kind:
        case "short_conv" | "mamba1":
            return mixer.value_dim
        case "mamba2":
            return mixer.width - values - mixer.heads
        case "gated_delta":
            return mixer.width - values
    return 0
