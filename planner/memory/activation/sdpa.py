"""torch's scaled-dot-product attention on a CUDA GPU, as transformers calls it.

Its kernels write no scores, but a mask costs: transformers then repeats keys and values for
every query head, and torch turns the booleans into numbers of the model's dtype. Heads wider
than 256 are summed up in float32; keys with fewer heads than the queries, and nobody to repeat
them, end on the math path, which writes float32 scores. All measured on an H200 (docs/memory.md).
"""

from ...models.spec import Attention
from .cache import stored_after
from .forward_step import Stage
from .live_tensors import Liveness
from .masks import needs_mask, reach

FLASH_HEAD_DIM = 256  # widest head of the flash and cuDNN kernels, and of grouped queries


def sdpa(m: Liveness, mixer: Attention, stage: Stage) -> int:
    """Take the attention output; queries and the cache belong to the caller."""
    masked = needs_mask(reach(mixer), stage)
    if stage.habits.unrepeated_keys and mixer.kv_heads != mixer.query_heads:
        return _math(m, mixer, stage, masked)
    grouped = not masked and mixer.head_dim == mixer.value_dim <= FLASH_HEAD_DIM
    copies = (0, 0) if grouped else repeated(m, mixer, stage)
    bias = m.take(_pairs(mixer, stage) * stage.element) if masked else 0
    out = m.take(stage.bytes(mixer.query_heads * mixer.value_dim))
    if mixer.head_dim > FLASH_HEAD_DIM:
        m.touch(stage.rows * mixer.query_heads * mixer.value_dim * 4)
    m.drop(bias, *copies)
    return out


def repeated(m: Liveness, mixer: Attention, stage: Stage) -> tuple[int, int]:
    """Keys and values copied once for each query head, where heads are grouped.

    A single head is repeated as a view.
    """
    if mixer.kv_heads in (1, mixer.query_heads):
        return 0, 0
    tokens = stage.batch * stored_after(reach(mixer), stage)
    elements = tokens * mixer.query_heads * stage.element
    return m.take(elements * mixer.head_dim), m.take(elements * mixer.value_dim)


def _pairs(mixer: Attention, stage: Stage) -> int:
    """(query, key) pairs of one head."""
    return stage.rows * stored_after(reach(mixer), stage)


def _math(m: Liveness, mixer: Attention, stage: Stage, masked: bool) -> int:
    pairs = _pairs(mixer, stage)
    bias = m.take(pairs * stage.element) if masked else 0
    query = m.take(2 * stage.rows * mixer.query_heads * mixer.head_dim * 4)
    tokens = stage.batch * stored_after(reach(mixer), stage) * mixer.kv_heads
    keys = m.take(2 * tokens * (mixer.head_dim + mixer.value_dim) * 4)
    scores = m.take(pairs * mixer.query_heads * 4)
    weights = m.take(pairs * mixer.query_heads * 4)
    m.touch(pairs * mixer.query_heads)  # which entries are -inf
    m.drop(scores)
    wide = m.take(stage.rows * mixer.query_heads * mixer.value_dim * 4)
    out = m.take(stage.bytes(mixer.query_heads * mixer.value_dim))
    m.drop(wide, weights, keys, query, bias)
    return out
