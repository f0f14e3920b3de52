"""Teacher-forced logits: a known text through the cache, and what the model would have said next.

The text is fed in the configuration's own prefill chunks, so that every token attends to what the
packed cache would hold for it, and only the logits of chosen positions are ever computed: a chunk
of 8,192 tokens with a vocabulary of 256,000 would otherwise cost gigabytes.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...planner.errors import BadInput, NothingFits
from ..failures import check_finite, is_out_of_memory
from ..forward import Forward, own_stream


def forced_logits(
    forward: Forward,
    ids: Tensor,
    positions: Tensor,
    chunks: Sequence[int],
    *,
    starts: Tensor | None = None,
) -> Iterator[Tensor]:
    """Run [B, T] tokens into the (emptied) cache; for each chunk, logits [B, n, V] of those of
    `positions` (int [P], rising, for all sequences alike) that lie in it, where any do.

    The logits at position t are the prediction of token t + 1. `chunks` sum to T; `starts`, int
    [B], is each sequence's left padding. Lazy: two models that are read in turn advance together.
    Raises BadInput for positions outside the text, NothingFits when memory runs out, NotFinite
    for logits that are no numbers.
    """
    if positions.numel() and not 0 <= int(positions[0]) <= int(positions[-1]) < ids.shape[1]:
        raise BadInput(
            f"positions {int(positions[0])} to {int(positions[-1])} of a text of {ids.shape[1]}",
            "ask for positions within the text",
        )
    forward.cache.reset()
    if starts is not None and bool(starts.any()):
        forward.cache.pad_left(starts)
    places = positions.cpu()
    done = 0
    for size in chunks:
        inside = places[(places >= done) & (places < done + size)] - done
        # a pass computes at least one row of logits
        keep = inside if inside.numel() else torch.tensor([size - 1])
        logits = _pass(forward, ids[:, done : done + size], keep)
        done += size
        check_finite(logits, f"within the first {done} tokens")
        if inside.numel():
            yield logits


@torch.inference_mode()
def _pass(forward: Forward, ids: Tensor, keep: Tensor) -> Tensor:
    try:
        with forward.turn(), own_stream(ids.device):
            output = forward.model(
                input_ids=ids,
                position_ids=forward.cache.clock.positions(ids.shape[1]),
                use_cache=True,
                logits_to_keep=keep.to(ids.device),
                **{forward.cache_name: forward.cache},
            )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        held = forward.cache.get_seq_length()
        forward.cache.reset()
        torch.cuda.empty_cache()
        raise NothingFits(
            f"a chunk of {ids.shape[1]} tokens with {keep.numel()} rows of logits does not fit, "
            f"after {held} tokens",
            "a smaller prefill chunk (+pc256), or fewer positions",
        ) from error
    return output.logits
