"""One configuration on batches of texts: fill the cache, then ask each question from there.

The texts of a batch are prefilled together in the configuration's own chunks. The cache's buffers
are copied once; each question restores them, is fed with its ideal answer behind it, and is
scored from the logits of that one pass.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...runtime import Session
from ...runtime.cache.kv_cache import PackedCache
from ...runtime.cache.state_layer import StateLayer
from .items import GridQuestion, ItemBatch


def score(session: Session, batches: Sequence[ItemBatch]) -> list[int]:
    """Answer parts that are right before the first that is wrong, for each item: texts in their
    order, the questions of a text in theirs. The session's batch is the batches' size."""
    return torch.cat([_score_batch(session, batch) for batch in batches]).flatten().tolist()


@torch.inference_mode()
def _score_batch(session: Session, batch: ItemBatch) -> Tensor:
    """int64 [B, questions], on the device until everything is launched."""
    cache, device = session.cache, session.device
    cache.reset()
    if cache.clock.padded:
        cache.pad_left(batch.padding.to(device))
    texts, done = batch.texts.to(device), 0
    for size in session.chunks(texts.shape[1]):
        _run(session, texts[:, done : done + size], keep=1)
        done += size
    kept = _Snapshot(cache)
    columns = []
    for question in batch.questions:
        kept.restore()
        logits = _run(session, question.ids.to(device), keep=0)
        columns.append(_right(question, logits.argmax(-1)))
    return torch.stack(columns, dim=1).cpu()


def _run(session: Session, ids: Tensor, keep: int) -> Tensor:
    """Append [B, n] tokens; logits of the last `keep` positions, of all for 0."""
    output = session.model(
        input_ids=ids,
        position_ids=session.cache.clock.positions(ids.shape[1]),
        use_cache=True,
        logits_to_keep=keep,
        **{session.forward.cache_name: session.cache},
    )
    logits: Tensor = output.logits
    return logits


def _right(question: GridQuestion, chosen: Tensor) -> Tensor:
    """int64 [B]: parts whose tokens, and all before them, are the first choice [B, n]."""
    device = chosen.device
    asks = question.asks.to(device)[:, :-1]
    wrong = asks & (chosen[:, :-1] != question.ids.to(device)[:, 1:])
    so_far = wrong.cumsum(1)
    # the token at position p is predicted at p - 1
    ends = question.ends.to(device)
    errors = so_far.gather(1, (ends - 1).clamp(min=0))
    return ((errors == 0) & (ends >= 0)).sum(1)


class _Snapshot:
    """A copy of everything a cache holds."""

    def __init__(self, cache: PackedCache) -> None:
        self._clock, self._tokens = cache.clock, cache.clock.host
        self._held = [t for s in cache.states for side in (s.key, s.value) for t in side.tensors()]
        for layer in cache.layers:
            if isinstance(layer, StateLayer):
                self._held += layer.memories()
        self._copies = [tensor.clone() for tensor in self._held]

    def restore(self) -> None:
        torch._foreach_copy_(self._held, self._copies)
        self._clock.place(self._tokens)
