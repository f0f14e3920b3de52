"""What attention over packed latents allocates, as runtime/kernels/latent.py runs it.

A chunk of one sequence expands the latents piece by piece and merges what its queries find in each
in float32; one token, and chunks of several sequences, meet the latents themselves.
"""

from ...models.spec import LatentAttention
from .forward_step import ForwardStep
from .live_tensors import LiveTensors
from .workspace import MULTIPROCESSORS, latent_piece, latent_splits

LSE_ROWS = 32  # torch's fused attention rounds the queries of its log-sum-exps up to these


def packed_latents(live: LiveTensors, mixer: LatentAttention, step: ForwardStep) -> int:
    """Take the attention output, token-major; queries belong to the caller."""
    out = take_latents(live, mixer, step)
    ordered = live.take(step.bytes(mixer.query_heads * mixer.value_dim))
    live.drop(out)
    return ordered


def take_latents(live: LiveTensors, mixer: LatentAttention, step: ForwardStep) -> int:
    """The same by heads, as attention leaves it."""
    chunk = step.batch == 1 and step.new > 1
    return _expanded(live, mixer, step) if chunk else _absorbed(live, mixer, step)


def _expanded(live: LiveTensors, mixer: LatentAttention, step: ForwardStep) -> int:
    """Queries in blocks as long as a piece, of which the last two can take most."""
    row = mixer.query_heads * mixer.value_dim * step.element
    piece = latent_piece(mixer.query_heads, mixer.nope_dim + mixer.value_dim)
    blocks = -(-step.new // piece)
    for index in range(max(0, blocks - 2), blocks):
        done = live.take(index * piece * row)
        queries = min(piece, step.new - index * piece)
        live.drop(done, _block(live, mixer, queries, step.past + index * piece, step.element))
    joined = live.take(step.new * row)
    if blocks == 1:
        return joined
    out = live.take(step.new * row)
    live.drop(joined)
    return out


def _block(live: LiveTensors, mixer: LatentAttention, queries: int, past: int, element: int) -> int:
    """Take what `queries` find in `past` tokens and their own."""
    heads = mixer.query_heads
    piece = latent_piece(heads, mixer.nope_dim + mixer.value_dim)
    values, each = queries * heads * mixer.value_dim, queries * heads * 4
    own = min(piece, queries)
    if not past:
        return _piece(live, mixer, own, queries, element)
    start = live.nbytes
    part = _piece(live, mixer, min(piece, past), queries, element)
    live.take(values * 4)  # the sums
    for number, tokens in enumerate((min(piece, past), own)):
        if number == 0 and past <= piece:
            continue
        found = _piece(live, mixer, tokens, queries, element)  # while the part before has its name
        live.drop(part)
        part = found
        top = live.take(each)
        live.touch(values * 4 + 2 * each)  # the part in float32, and its weight
        live.drop(top)
    live.drop(live.nbytes - start - part)
    live.take(values * 4)
    out = live.take(values * element)
    live.drop(live.nbytes - start - out)
    return out


def _piece(
    live: LiveTensors, mixer: LatentAttention, tokens: int, queries: int, element: int
) -> int:
    """Attend to a piece of `tokens` latents: take the result and its log-sum-exps."""
    heads = mixer.query_heads
    held = [live.take(tokens * width * element) for width in (mixer.kv_rank, mixer.rope_dim)]
    both = live.take(tokens * heads * (mixer.nope_dim + mixer.value_dim) * element)
    keys = live.take(tokens * heads * (mixer.nope_dim + mixer.rope_dim) * element)
    live.drop(*held)
    out = live.take(queries * heads * mixer.value_dim * element)
    out += live.take(-(-queries // LSE_ROWS) * LSE_ROWS * heads * 4)
    live.drop(both, keys)
    return out


def _absorbed(live: LiveTensors, mixer: LatentAttention, step: ForwardStep) -> int:
    heads, rank = mixer.query_heads, mixer.kv_rank
    rows = live.take(step.bytes(heads * mixer.nope_dim))
    asked = live.take(step.bytes(heads * rank))
    live.drop(rows)
    contiguous = live.take(step.bytes(heads * rank)) if step.batch > 1 else 0
    contiguous += live.take(step.bytes(heads * mixer.rope_dim))
    parts = int(latent_splits(step.new * heads, step.batch, step.capacity, MULTIPROCESSORS))
    sums = live.take(parts * step.rows * heads * rank * 4)
    sums += live.take(parts * step.rows * heads * 4)
    live.drop(contiguous)
    # each part's sums weighted, and their total divided by the norm
    live.touch((parts + 1) * step.rows * heads * rank * 4 + (parts + 2) * step.rows * heads * 4)
    mixed = live.take(step.bytes(heads * rank))
    live.drop(sums, asked)
    copied = live.take(step.bytes(heads * rank))
    out = live.take(step.bytes(heads * mixer.value_dim))
    live.drop(copied, mixed)
    return out
