"""What the kvpareto runtime allocates where it differs from transformers, whose layers it runs.

Attention reads a packed cache that was allocated before prefill: no concatenation, no masks, no
repeated keys, no full 16-bit copy. A chunk's queries meet the past in segments that are staged
in 16 bits in one buffer; decoding splits the cache over thread blocks. Matrices at 4 or 8 bits
are written out one at a time into a scratch buffer as large as the largest. These buffers are
taken when first needed and held. Norms, rotary embeddings and gates are single kernels.

Buffer sizes are those that the kernels allocate by (workspace.py).
"""

from ...formats.configuration import Configuration
from ...formats.kv_format import KVFormat
from ...hardware.compute_capability import compute_capability
from ...hardware.gpus import Hardware
from ...models.spec import Attention, LatentAttention, ModelSpec
from ...workload import Workload
from ..weights import weight_bytes
from .forward_step import ForwardStep
from .live_tensors import LiveTensors, rounded
from .segmented_attention import stages_segments, take_staged
from .workspace import (
    EIGHT_BITS,
    EIGHT_DIM,
    GRAPH_FROM,
    MULTIPROCESSORS,
    PIECES_TO,
    block_heads,
    eight_heads,
    merging_bytes,
    partial_bytes,
    staging_bytes,
    tile_splits,
)

FUSED_LAYERS = frozenset({"llama", "qwen2", "qwen3", "mistral", "mixtral", "qwen3_moe"})
"""Model types whose attention and layers run in the runtime's own code (PLAIN in runtime/fused.py):
one kernel rotates queries and keys, and a local name keeps attention's output during the FFN."""


def scratch(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    chunk: int | None,
    *,
    rest: bool = True,
) -> int:
    """Bytes of the buffers held as long as the cache: weights, segments, sums, partial results, and
    the places through which a captured chunk's pieces hand over to attention.

    They are counted as for a 16-bit cache with tails; no format needs more. `rest`: once the tokens
    that fill no chunk have come, whose segments may be longer.
    """
    new = min(chunk or workload.context, workload.context)
    sizes = {new, workload.context % new or new} if rest else {new}
    staged = merged = partial = 0
    form = KVFormat.of(Configuration(), 0)
    for mixer, _ in spec.mixer_counts:
        if not isinstance(mixer, Attention):
            continue
        window = mixer.window or mixer.local_chunk
        held = form.capacity(window, workload.tokens, chunk)
        dim = mixer.head_dim
        for size in sizes:
            if stages_segments(mixer, size, workload.tokens):
                staged = max(staged, staging_bytes(mixer.kv_heads, dim, dim, held, size))
                merged = max(merged, merging_bytes(mixer.query_heads, dim, size))
        group = max(1, mixer.query_heads // mixer.kv_heads)  # some configs say fewer than KV heads
        rows = workload.batch * mixer.kv_heads * (group // block_heads(group))
        arguments = (workload.batch, mixer.query_heads, rows, mixer.value_dim, held)
        partial = max(partial, partial_bytes(*arguments, MULTIPROCESSORS, True))
    weights = weight_bytes(spec, config.weight_bits).workspace
    held_over = _places(spec, workload.batch * new) if in_pieces(spec, workload, chunk) else 0
    return sum(rounded(size) for size in (weights, staged, merged, partial)) + held_over


def in_pieces(spec: ModelSpec, workload: Workload, chunk: int | None) -> bool:
    """Whether full chunks run as CUDA graphs between their attention calls
    (runtime/generation/piecewise_graphs.py): where one of these reads lengths on the host, which
    is the latents' and the staged segments', all of them are apart."""
    mixers = [x for x, _ in spec.mixer_counts]
    return (
        chunk is not None
        and chunk <= PIECES_TO
        and workload.context >= GRAPH_FROM * chunk
        and all(isinstance(x, Attention | LatentAttention) for x in mixers)
        and any(
            not isinstance(x, Attention) or stages_segments(x, chunk, workload.tokens)
            for x in mixers
        )
    )


def _parts(mixer: Attention, step: ForwardStep) -> int:
    """Parts of the cache that the general kernel attends to apart."""
    group = mixer.query_heads // mixer.kv_heads
    window = mixer.window_within(step.capacity) or mixer.local_chunk
    held = min(step.capacity, window + step.new) if window else step.capacity
    rows = step.batch * mixer.kv_heads
    return int(tile_splits(step.new, group, rows, held, MULTIPROCESSORS))


def _places(spec: ModelSpec, new: int) -> int:
    """Queries and attention's result, for each shape of them."""
    shapes = {
        (x.query_heads, x.head_dim, x.value_dim)
        if isinstance(x, Attention)
        else (x.query_heads, x.nope_dim + x.rope_dim, x.value_dim)
        for x, _ in spec.mixer_counts
        if isinstance(x, Attention | LatentAttention)
    }
    return sum(
        rounded(2 * new * heads * dim) + rounded(2 * new * heads * value_dim)
        for heads, dim, value_dim in shapes
    )


def multiplies_in_8_bits(hardware: Hardware | None) -> bool:
    """Whether this GPU runs the attention of runtime/kernels/eight_bits/."""
    return hardware is not None and compute_capability(hardware) == (9, 0)


def attends_in_8_bits(config: Configuration, hardware: Hardware | None) -> bool:
    """Whether chunks over a cache of this format are attended to in 8 bits there: of integers, all
    layers alike (chunk8.supports)."""
    return (
        multiplies_in_8_bits(hardware)
        and max(config.k_bits, config.v_bits) <= EIGHT_BITS
        and not (config.k_format or config.v_format or config.protection)
        and not (config.residual or config.sinks)
    )


def goes_in_8_bits(mixer: Attention, step: ForwardStep) -> bool:
    """Whether these queries do: past and chunk at once, with no results of segments."""
    if not (
        step.in_8_bits
        and mixer.head_dim == mixer.value_dim == EIGHT_DIM
        and mixer.window_within(step.capacity) is None
        and stages_segments(mixer, step.new, step.capacity)
    ):
        return False
    heads, kv_heads = mixer.query_heads, mixer.kv_heads
    staged = staging_bytes(kv_heads, EIGHT_DIM, EIGHT_DIM, step.capacity, step.new)
    room = max(staged, merging_bytes(heads, EIGHT_DIM, step.new))
    return bool(eight_heads(room, step.new, step.total, heads, kv_heads) > 0)


def packed(live: LiveTensors, mixer: Attention, step: ForwardStep) -> int:
    """Take the attention output; queries belong to the caller."""
    out = attended(live, mixer, step)
    if goes_in_8_bits(mixer, step):  # its rows are in order
        return out
    ordered = live.take(step.bytes(mixer.query_heads * mixer.value_dim))  # token-major
    live.drop(out)
    return ordered


def attended(live: LiveTensors, mixer: Attention, step: ForwardStep) -> int:
    """Take what the kernels return, heads first."""
    size = step.bytes(mixer.query_heads * mixer.value_dim)
    queries = step.rows * mixer.query_heads
    if goes_in_8_bits(mixer, step):
        return live.take(size)
    if stages_segments(mixer, step.new, step.capacity):
        return take_staged(live, mixer, step)
    if step.new > 1 or (mixer.local_chunk or step.capacity) < step.capacity:
        parts = _parts(mixer, step)
        sums = live.take(parts * queries * (mixer.value_dim + 1) * 4)
        # Each part's sums weighted, and their total divided by the norm.
        live.touch((parts + 1) * queries * mixer.value_dim * 4 + (parts + 2) * queries * 4)
        out = live.take(size)
        live.drop(sums)
        return out
    return live.take(size)
