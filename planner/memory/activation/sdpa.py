"""torch's scaled-dot-product attention on a CUDA GPU, as transformers calls it.

Its kernels write no scores, but a mask costs: transformers then repeats keys and values for
every query head, and torch turns the booleans into numbers of the model's dtype. Heads wider
than 256 are summed up in float32; keys with fewer heads than the queries, and nobody to repeat
them, end on the math path, which writes float32 scores. All measured on an H200 (docs/memory.md).
"""

from ...models.spec import Attention
from .cache import stored_after
from .forward_step import ForwardStep
from .live_tensors import LiveTensors
from .masks import needs_mask, reach

FLASH_HEAD_DIM = 256  # widest head of the flash and cuDNN kernels, and of grouped queries


def sdpa(live: LiveTensors, mixer: Attention, step: ForwardStep) -> int:
    """Take the attention output; queries and the cache belong to the caller."""
    masked = needs_mask(reach(mixer), step)
    if step.traits.unrepeated_keys and mixer.kv_heads != mixer.query_heads:
        return _math(live, mixer, step, masked)
    grouped = not masked and mixer.head_dim == mixer.value_dim <= FLASH_HEAD_DIM
    copies = (0, 0) if grouped else repeated(live, mixer, step)
    bias = live.take(_pairs(mixer, step) * step.element) if masked else 0
    out = live.take(step.bytes(mixer.query_heads * mixer.value_dim))
    if mixer.head_dim > FLASH_HEAD_DIM:
        live.touch(step.rows * mixer.query_heads * mixer.value_dim * 4)
    live.drop(bias, *copies)
    return out


def repeated(live: LiveTensors, mixer: Attention, step: ForwardStep) -> tuple[int, int]:
    """Keys and values copied once for each query head, where heads are grouped.

    A single head is repeated as a view.
    """
    if mixer.kv_heads in (1, mixer.query_heads):
        return 0, 0
    tokens = step.batch * stored_after(reach(mixer), step)
    elements = tokens * mixer.query_heads * step.element
    return live.take(elements * mixer.head_dim), live.take(elements * mixer.value_dim)


def _pairs(mixer: Attention, step: ForwardStep) -> int:
    """(query, key) pairs of one head."""
    return step.rows * stored_after(reach(mixer), step)


def _math(live: LiveTensors, mixer: Attention, step: ForwardStep, masked: bool) -> int:
    pairs = _pairs(mixer, step)
    bias = live.take(pairs * step.element) if masked else 0
    query = live.take(2 * step.rows * mixer.query_heads * mixer.head_dim * 4)
    tokens = step.batch * stored_after(reach(mixer), step) * mixer.kv_heads
    keys = live.take(2 * tokens * (mixer.head_dim + mixer.value_dim) * 4)
    scores = live.take(pairs * mixer.query_heads * 4)
    weights = live.take(pairs * mixer.query_heads * 4)
    live.touch(pairs * mixer.query_heads)  # which entries are -inf
    live.drop(scores)
    wide = live.take(step.rows * mixer.query_heads * mixer.value_dim * 4)
    out = live.take(step.bytes(mixer.query_heads * mixer.value_dim))
    live.drop(wide, weights, keys, query, bias)
    return out
