"""What the kvpareto runtime allocates where it differs from transformers, whose layers it runs.

Attention reads a packed cache that was allocated before prefill: no concatenation, no masks, no
repeated keys, no full 16-bit copy. A chunk's queries meet the past in segments that are staged
in 16 bits in one buffer; decoding splits the cache over thread blocks. Matrices at 4 or 8 bits
are written out one at a time into a scratch buffer as large as the largest. These buffers are
taken when first needed and held. Norms, rotary turns and gates are single kernels.

Buffer sizes are those that the kernels allocate by (workspace.py).
"""

from ..configuration import Configuration
from ..kv_format import KVFormat
from ..model_spec import Attention, ModelSpec
from ..weight_format import weight_bytes
from ..workload import Workload
from .liveness import Liveness, rounded
from .stage import Stage
from .workspace import (
    GRAPH_FROM,
    MULTIPROCESSORS,
    PIECES_TO,
    SEGMENT,
    merging_bytes,
    partial_bytes,
    staging_bytes,
)

FUSED_LAYERS = frozenset({"llama", "qwen2", "qwen3", "mistral", "mixtral", "qwen3_moe"})
"""Model types whose attention and layers run in the runtime's own code (PLAIN in runtime/fused.py):
one kernel turns queries and keys, and a local name keeps attention's output while the FFN runs."""
STAGED_HEAD_DIM = 256  # widest head of the library's attention that staged segments go through


def scratch(spec: ModelSpec, config: Configuration, workload: Workload, chunk: int | None) -> int:
    """Bytes of the buffers held as long as the cache: weights, segments, sums, partial results, and
    the places through which a captured chunk's pieces hand over to attention.

    They are counted as for a 16-bit cache with tails; no format needs more.
    """
    new = min(chunk or workload.context, workload.context)
    staged = merged = partial = 0
    form = KVFormat.of(Configuration(), 0)
    for mixer, _ in spec.mixer_counts:
        if not isinstance(mixer, Attention):
            continue
        window = mixer.window or mixer.local_chunk
        held = form.capacity(window, workload.tokens, chunk)
        if stages_segments(mixer, workload.batch, new, workload.tokens):
            dim = mixer.head_dim
            staged = max(staged, staging_bytes(mixer.kv_heads, dim, dim, held, new))
            merged = max(merged, merging_bytes(mixer.query_heads, dim, new))
        rows = workload.batch * mixer.kv_heads
        arguments = (workload.batch, mixer.query_heads, rows, mixer.value_dim, held)
        partial = max(partial, partial_bytes(*arguments, MULTIPROCESSORS, True))
    weights = weight_bytes(spec, config.weight_bits).workspace
    held_over = _places(spec, new) if in_pieces(spec, workload, chunk) else 0
    return sum(rounded(size) for size in (weights, staged, merged, partial)) + held_over


def in_pieces(spec: ModelSpec, workload: Workload, chunk: int | None) -> bool:
    """Whether full chunks run as CUDA graphs between their attention calls (runtime/pieces.py)."""
    mixers = [x for x, _ in spec.mixer_counts if isinstance(x, Attention)]
    return (
        chunk is not None
        and chunk <= PIECES_TO
        and workload.context >= GRAPH_FROM * chunk
        and all(stages_segments(x, workload.batch, chunk, workload.tokens) for x in mixers)
    )


def _places(spec: ModelSpec, new: int) -> int:
    """Queries and attention's result, for each shape of them."""
    mixers = [x for x, _ in spec.mixer_counts if isinstance(x, Attention)]
    shapes = {(x.query_heads, x.head_dim, x.value_dim) for x in mixers}
    return sum(
        rounded(2 * new * heads * dim) + rounded(2 * new * heads * value_dim)
        for heads, dim, value_dim in shapes
    )


def stages_segments(mixer: Attention, batch: int, new: int, tokens: int) -> bool:
    """Whether a chunk's attention goes through staged segments; else through Triton's kernel.

    `tokens` is what the cache was allocated for.
    """
    return (
        batch == 1
        and new > 1
        and mixer.softcap is None
        and mixer.head_dim == mixer.value_dim <= STAGED_HEAD_DIM
        and mixer.head_dim % 8 == 0
        and (mixer.window_within(tokens) or 0) <= SEGMENT // 2
    )


def packed(m: Liveness, mixer: Attention, stage: Stage) -> int:
    """Take the attention output; queries belong to the caller."""
    size = stage.bytes(mixer.query_heads * mixer.value_dim)
    queries = stage.rows * mixer.query_heads
    if stages_segments(mixer, stage.batch, stage.new, stage.capacity):
        out = m.take(size)
        parts = _parts(mixer, stage.new)
        folded = parts * size if parts > 1 else 0  # the queries, once for each part
        m.touch(folded + parts * (size + queries * 4))  # one segment's results, log-sum-exps
    elif stage.new > 1:
        sums = m.take(queries * (mixer.value_dim + 1) * 4)
        m.touch(2 * queries * mixer.value_dim * 4)  # weighted, and divided by the norm
        out = m.take(size)
        m.drop(sums)
    else:
        out = m.take(size)
    ordered = m.take(size)  # token-major
    m.drop(out)
    return ordered


def _parts(mixer: Attention, new: int) -> int:
    """Parts of a segment that are attended to side by side, so that few queries fill the GPU."""
    blocks = -(-new * mixer.query_heads // mixer.kv_heads // 128) * mixer.kv_heads
    parts = 1
    while parts < 8 and 2 * parts * blocks <= MULTIPROCESSORS:
        parts *= 2
    return parts
