"""Live bytes of a torch program on the meta device, counted as the CUDA caching allocator would.

A dispatch mode sees every operation's outputs; each storage that was not seen before counts
its bytes, rounded up to 512, until Python drops it. Nothing is computed: shapes flow, bytes
are counted, so a model of any size runs on a laptop. What meta execution cannot show, the
memory that CUDA kernels take inside one operation, is added by `cuda_attention`.
"""

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROUND = 512  # the caching allocator hands out multiples of 512 bytes


def rounded(nbytes: int) -> int:
    return -(-nbytes // ROUND) * ROUND


class LiveBytes(TorchDispatchMode):
    """Counts bytes of the storages born on the meta device while the mode is on.

    `live` are the bytes alive now, `peak` the most since `reset_peak`, `where` the innermost
    lines of the model that were running at the peak (kept only with `explain`).
    """

    def __init__(self, explain: bool = False) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self.where: tuple[str, ...] = ()
        self.at_peak: list[tuple[str, int]] = []
        self._explain = explain
        self._alive: dict[int, tuple[str, int]] = {}
        self._ids = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def reset_peak(self) -> None:
        self.peak = self.live

    def adopt(self, tensor: torch.Tensor, name: str = "weights") -> None:
        """Start counting a tensor's storage; one that is known already changes nothing."""
        if tensor.device.type != "meta":
            return
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._ids += 1
        size = rounded(storage.nbytes())
        self._known[storage] = self._ids
        self._alive[self._ids] = (name, size)
        weakref.finalize(storage, self._die, self._ids)
        self._grow(size)

    def scratch(self, nbytes: int) -> None:
        """Memory that a kernel takes and gives back before it returns."""
        self._grow(rounded(nbytes))
        self.live -= rounded(nbytes)

    def _grow(self, size: int) -> None:
        self.live += size
        if self.live > self.peak:
            self.peak = self.live
            if self._explain:
                self.at_peak = list(self._alive.values())
                self.where = _model_lines()

    def _die(self, key: int) -> None:
        self.live -= self._alive.pop(key)[1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            # Models that look at a value (the longest position, whether a mask is full) see 1.
            return 1
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                name = f"{func} {tuple(leaf.shape)} {_model_lines()[:1]}" if self._explain else ""
                self.adopt(leaf, name)
        return out


def _model_lines() -> tuple[str, ...]:
    frame, found = sys._getframe(2), []
    while frame is not None and len(found) < 4:
        file = frame.f_code.co_filename
        if "transformers" in file:
            found.append(f"{file.rsplit('/', 1)[-1]}:{frame.f_lineno}:{frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)


@contextmanager
def counting(explain: bool = False) -> Iterator[LiveBytes]:
    mode = LiveBytes(explain)
    with torch.no_grad(), mode:
        yield mode
