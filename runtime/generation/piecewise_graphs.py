"""A pass over n tokens as CUDA graphs between its attention calls, which run eagerly.

A staged chunk's attention counts its segments on the host, so no graph can hold it. All the rest
of a layer can be held: some thirty launches that the host would otherwise make one by one, which
is what a small chunk waits for. The capture is cut at every attention call: a piece ends by
putting the layer's query in a fixed place, attention runs on that and puts its result in another
one, and the next piece begins by reading it. The places are shared by all layers of a shape,
since each is read before the next layer writes it.
"""

from typing import Any

import torch
from torch import Tensor

from ..cache.layer_state import Attend


class PiecewiseGraphs:
    """Graphs and attention calls of one pass, in turn; used while capturing and to replay.

    `pool` is CUDA's handle of the memory that a session's graphs share, None for a new one.
    """

    def __init__(self, pool: Any) -> None:
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._calls: list[tuple[Tensor, Attend, Tensor]] = []
        self._places: dict[tuple[torch.Size, torch.dtype, int], tuple[Tensor, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle() if pool is None else pool
        self._open = False

    def pool(self) -> Any:
        return self._pool

    def begin(self) -> None:
        """Begin to capture a piece on the current stream."""
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool)
        self._graphs.append(graph)
        self._open = True

    def end(self) -> None:
        """End the piece being captured; nothing where none is."""
        if self._open:
            self._open = False
            self._graphs[-1].capture_end()

    def seam(self, query: Tensor, value_dim: int, attend: Attend) -> Tensor:
        """Between a layer's query [B, Hq, n, D] and its attention: one piece ends, one begins.

        Nothing runs during a capture, so neither does the attention.
        """
        shape = query.shape, query.dtype, value_dim
        if shape not in self._places:
            held = torch.empty_like(query, memory_format=torch.contiguous_format)
            self._places[shape] = held, query.new_empty(*query.shape[:3], value_dim)
        held, mixed = self._places[shape]
        held.copy_(query)
        self.end()
        self._calls.append((held, attend, mixed))
        self.begin()
        return mixed

    def replay(self) -> None:
        """Run the pass: what it reads and writes lies where it lay when it was captured."""
        first, *rest = self._graphs
        first.replay()
        for (held, attend, mixed), graph in zip(self._calls, rest, strict=True):
            mixed.copy_(attend(held))
            graph.replay()
