"""Pages as vLLM wrote them, and the runtime's layers attending to pages instead of their own cache.

Two implementations round keys otherwise in the last bit of 16. A code that stands on the edge
between two steps then falls to the other side, and moves its value by a whole step; layers behind
it see that. So the bytes that a server wrote are taken out of it (watch_pages), and the runtime
attends to those very bytes: what then differs is rounding of 16 bits alone, and each code can be
held to the runtime's own value before it was rounded (Differing).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvpareto.runtime.cache.packed_layer import PackedLayer
from kvpareto.runtime.kernels.paged import page_format
from kvpareto.runtime.kernels.paged.page_format import SCALE_BYTES, PageFormat, pack, unpack


def watch_pages(llm: Any, held: dict[tuple[int, ...], Tensor]) -> None:
    """From now on `held` gets the pages of each request of an engine in this process as it ends:
    its prompt -> bytes [layers, heads, tokens, row]; the answer's last token has none."""
    manager = llm.llm_engine.engine_core.engine_core.scheduler.kv_cache_manager
    context = llm.llm_engine.vllm_config.compilation_config.static_forward_context
    free: Callable[[Any], None] = manager.free

    def keep(request: Any) -> None:
        (blocks,) = manager.get_block_ids(request.request_id)
        written = request.num_tokens - 1
        rows = [
            layer.kv_cache[blocks].permute(1, 0, 2, 3).flatten(1, 2)[:, :written]
            for layer in context.values()
        ]
        held[tuple(request.prompt_token_ids)] = torch.stack(rows).view(torch.uint8).cpu()
        free(request)

    manager.free = keep


@dataclass
class Differing:
    """Served codes beside those that the runtime would have written, of one layer."""

    codes: int = 0
    other: int = 0
    farthest: float = 0.0  # steps from the served code to the runtime's value, of codes that differ

    def add(self, x: Tensor, rows: Tensor, form: PageFormat) -> None:
        """Keys or values [heads, n, D] of the runtime against served bytes [heads, n, side]."""
        mine = pack(x, form)
        changed = (mine ^ rows)[..., :-SCALE_BYTES]
        if form.bits == 4:
            differ = torch.stack([changed & 15, changed >> 4], -1).flatten(-2) != 0
        else:
            differ = changed != 0
        word = rows[..., -SCALE_BYTES:].contiguous().view(torch.int32)
        scale = (word & -16 if form.bits == 4 else word).view(torch.float32)
        exact = (page_format.rotate(x) if form.rotated else x).float()
        steps = ((exact - unpack(rows, form)).abs() / scale)[differ]
        self.codes += differ.numel()
        self.other += int(differ.sum())
        self.farthest = max(self.farthest, float(steps.max()) if len(steps) else 0.0)


class PagedLayer(PackedLayer):
    """A layer of 16 bits whose keys and values have been in pages of `form`: in those `served`
    [heads, tokens, row], or its own, after a relative `noise`. Without a form, noise alone."""

    form: PageFormat | None
    served: Tensor | None
    noise: float
    taken: int  # tokens of this prompt
    differing: Differing

    @classmethod
    def of(cls, layer: PackedLayer, form: PageFormat | None) -> "PagedLayer":
        """The same layer, from now on with pages."""
        layer.__class__ = cls
        assert isinstance(layer, cls)
        layer.form, layer.noise, layer.differing = form, 0.0, Differing()
        layer.begin(None)
        return layer

    def begin(self, served: Tensor | None) -> None:
        """A prompt begins."""
        self.served, self.taken = served, 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> Any:
        key, value = key_states, value_states
        first, self.taken = self.taken, self.taken + key.shape[2]
        if self.served is None or self.form is None:
            key, value = (self._own(x) for x in (key, value))
        else:
            rows = self.served[:, first : self.taken].to(key.device)
            sides = rows[..., : self.form.side_bytes], rows[..., self.form.side_bytes :]
            for x, side in zip((key, value), sides, strict=True):
                self.differing.add(x[0], side, self.form)
            key, value = (back(side, self.form, key.dtype)[None] for side in sides)
        return super().update(key, value, *args, **kwargs)

    def step(self, *args: object) -> None:
        """Nothing is fused: rows are turned, then packed."""

    def _own(self, x: Tensor) -> Tensor:
        if self.noise:
            drawn = 2 * torch.rand_like(x, dtype=torch.float32) - 1
            x = (x * (1 + self.noise * drawn)).to(x.dtype)
        return x if self.form is None else paged(x, self.form)


def paged(x: Tensor, form: PageFormat) -> Tensor:
    """Keys or values as a page gives them back."""
    return back(pack(x, form), form, x.dtype)


def back(rows: Tensor, form: PageFormat, dtype: torch.dtype) -> Tensor:
    """A side's bytes [..., side] -> [..., D], turned back, of `dtype`."""
    held = unpack(rows, form)
    return (page_format.rotate_back(held) if form.rotated else held).to(dtype)
