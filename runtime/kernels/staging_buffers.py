"""The room in which chunks' attention is staged: one set of buffers for all layers of a cache.

Sizes are the planner's (planner/memory/activation/workspace.py). What a chunk of a layer needs of
it is looked up, not built: a room for each layer and number of queries, a view for each cut of it.
"""

import weakref

import torch
from torch import Tensor

from ...planner.memory.activation.workspace import merging_bytes, segment_tokens, staging_bytes
from ..cache.layer_state import Clock, LayerState
from .cuda_stage import Stager
from .eight_bits import chunk8

MOST_ROOMS = 8192  # layers times sequences times numbers of queries: last chunks may have any


class StagingBuffers:
    """Where n queries of one layer are staged and summed up.

    `segment`: tokens of a full segment; `mix` [Hq, n, D] and `tops` [2, Hq * n], float32: the
    sums over segments and their log-sum-exps; `stager`: the layer's kernels; `eight`: those of
    8 bits, where they take it, and the bytes that they stage in, `spare`, and sum up in, `spill`.
    """

    def __init__(self, state: LayerState, query: Tensor, shared: "_Shared") -> None:
        _, query_heads, n, dim = query.shape
        self.heads, self._dim = state.key.values.shape[1], dim
        self.segment = segment_tokens(self.heads, dim, dim, n)
        self.stager = Stager(state, query.dtype)
        half, whole = _sizes(state, query)
        self._keys, self._values = shared.staged[:half], shared.staged[half : 2 * half]
        cut = query_heads * n * dim
        self.mix, self.tops = shared.sums[:cut], shared.sums[cut:whole].view(2, -1)
        self.eight: chunk8.Chunk8 | None = None
        if chunk8.supports(state, query.dtype):
            self.eight = chunk8.Chunk8(state, query.dtype)
        both = sorted((shared.staged, shared.sums), key=lambda x: x.nbytes)
        self.spill, self.spare = (x.view(torch.uint8) for x in both)
        self._views: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def stage(self, first: int, count: int, parts: int) -> tuple[Tensor, Tensor]:
        """Write positions [first, first + count) out: K and V [parts, H, count / parts, D]."""
        views = self._views.get((count, parts))
        if views is None:
            shape = parts, self.heads, count // parts, self._dim
            size = self.heads * count * self._dim
            views = self._keys[:size].view(shape), self._values[:size].view(shape)
            if count % (self.segment // 4) == 0:  # comes again; others are too many to keep
                self._views[count, parts] = views
        self.stager.stage(first, *views)
        return views


class _Shared:
    """Buffers of a cache and its rooms, by layer and number of queries."""

    def __init__(self, query: Tensor) -> None:
        self.staged, self.sums = query.new_empty(0), query.new_empty(0, dtype=torch.float32)
        self.rooms: dict[tuple[int, torch.Size, torch.dtype], StagingBuffers] = {}

    def fit(self, state: LayerState, query: Tensor) -> None:
        """Grow the buffers to what these queries need; rooms cut from smaller ones are over."""
        half, whole = _sizes(state, query)
        if self.staged.numel() < 2 * half:
            self.rooms.clear()
            self.staged = query.new_empty(0)  # the smaller one goes first
            self.staged = query.new_empty(2 * half)
        if self.sums.numel() < whole:
            self.rooms.clear()
            self.sums = query.new_empty(whole, dtype=torch.float32)


_shared: weakref.WeakKeyDictionary[Clock, _Shared] = weakref.WeakKeyDictionary()


def staging_buffers_of(state: LayerState, query: Tensor) -> StagingBuffers:
    """The room for `query` [1, Hq, n, D] over this layer's cache."""
    shared = _shared.get(state.clock)
    if shared is None:
        shared = _shared[state.clock] = _Shared(query)
    # the number of a layer's state names it as long as its cache, and so its clock, lives
    key = id(state), query.shape, query.dtype
    room = shared.rooms.get(key)
    if room is None:
        if len(shared.rooms) >= MOST_ROOMS:
            shared.rooms.clear()
        shared.fit(state, query)
        room = shared.rooms[key] = StagingBuffers(state, query, shared)
    return room


def _sizes(state: LayerState, query: Tensor) -> tuple[int, int]:
    """Elements of staged keys (as many values), and of float32 sums."""
    _, query_heads, n, dim = query.shape
    heads = state.key.values.shape[1]
    kept = (state.key.values, state.key.residual, state.key.sinks)
    held = sum(x.shape[2] for x in kept if x is not None)
    return staging_bytes(heads, dim, dim, held, n) // 4, merging_bytes(query_heads, dim, n) // 4
