"""Bytes of transformers' DynamicCache: keys and values in the model's dtype.

Full layers keep every token, sliding and local ones the window less the current token, MLA its
latent and rotary key, recurrent layers their states.
"""

from ...formats.dtypes import DTYPE_BYTES
from ...memory.kv_cache import compressed_rest, index_bytes, kept_tokens, state_bytes
from ...models.spec import Attention, CompressedAttention, LatentAttention, ModelSpec


def dynamic_bytes(spec: ModelSpec, batch: int, tokens: int) -> int:
    """Bytes of `tokens` tokens of `batch` sequences, recurrent states included."""
    element = DTYPE_BYTES[spec.dtype]
    total = 0
    for mixer, count in spec.mixer_counts:
        if isinstance(mixer, Attention):
            if mixer.shares_kv_with is None:
                heads = mixer.expanded_heads or mixer.kv_heads
                width = heads * (mixer.head_dim + mixer.value_dim) * element
                width += index_bytes(mixer, spec.dtype)
                total += count * kept_tokens(mixer, tokens) * width
        elif isinstance(mixer, LatentAttention):
            width = (mixer.kv_rank + mixer.rope_dim) * element + index_bytes(mixer, spec.dtype)
            total += count * kept_tokens(mixer, tokens) * width
        elif isinstance(mixer, CompressedAttention):
            entries = tokens // mixer.rate * mixer.head_dim
            total += count * (entries + compressed_rest(mixer, tokens)) * element
    return total * batch + state_bytes(spec, batch)
