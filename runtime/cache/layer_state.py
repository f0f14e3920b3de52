"""One layer's packed keys and values: the planner's buffers, and where tokens lie in them.

Positions count from 0 for each sequence of the batch, padding included. Of `total` tokens, with
S sinks, P the capacity of the packed buffer and R that of the residual buffer:

    [0, S)        the sinks, at slot p
    [S, end)      packed, at slot (p - S) mod P; end = S + form.packed_tokens(total)
    [end, total)  residual, at slot (p - S) mod R

Full layers never wrap; a layer that slides has room for its window and one chunk, and wraps.
Tokens move from residual to packed in whole blocks and are never quantized twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from ...planner.formats.kv_format import KVFormat, SideFormat

Attend = Callable[[Tensor], Tensor]
"""A layer's attention, all but its query [B, Hq, n, D] given: -> [B, Hq, n, Dv]."""
Seam = Callable[[Tensor, int, Attend], Tensor]
"""(query, Dv, attention) -> what the attention gives."""


_START = {"mean": torch.zeros, "tensor": torch.ones}
"""What stands in buffers that a sequence's first append sets; the others are written first."""


class Clock:
    """How many tokens the cache holds: `host` for Python, `device` (int32 [1]) for kernels.

    One clock serves all layers of a cache and moves before the first layer appends, so that
    during a forward pass of n tokens it already counts them. Kernels read the device counter,
    so a captured CUDA graph stays right as the cache grows; whoever replays a graph calls
    `follow`, since the replay moves the device counter only.

    `starts`, int32 [B], is each sequence's number of padding tokens on the left, `begins` the same
    on the host; a batch of one has none. `seam` is set while a pass is captured in pieces
    (piecewise_graphs.py): it then stands between a layer's query and its attention.
    """

    def __init__(self, batch: int, device: torch.device) -> None:
        self.host = 0
        self.appending = 0  # tokens of the pass that moved it last
        self.device = torch.zeros(1, dtype=torch.int32, device=device)
        self.starts = torch.zeros(batch, dtype=torch.int32, device=device)
        self.begins = [0] * batch
        self.seam: Seam | None = None

    @property
    def padded(self) -> bool:
        """Whether sequences may begin with padding; fixed, so that captured graphs stay right."""
        return self.starts.shape[0] > 1

    def advance(self, tokens: int) -> None:
        self.appending = tokens
        self.host += tokens
        self.device += tokens

    def follow(self, tokens: int) -> None:
        """Account on the host for `tokens` that a graph replay appended on the device."""
        self.host += tokens

    def place(self, tokens: int) -> None:
        """Set the count on both sides."""
        self.host = tokens
        self.device.fill_(tokens)

    def begin(self, starts: Sequence[int]) -> None:
        """Set where each sequence begins, on both sides."""
        self.begins = list(starts)
        self.starts.copy_(torch.tensor(self.begins, dtype=torch.int32))

    def positions(self, tokens: int) -> Tensor:
        """RoPE positions int64 [B, tokens] of the next `tokens` tokens; 0 for padding."""
        where, places = self.device.device, self.device
        if tokens > 1:
            places = places + torch.arange(tokens, dtype=torch.int32, device=where)
        found = torch.empty(self.starts.shape[0], tokens, dtype=torch.int64, device=where)
        return torch.sub(places, self.starts[:, None], out=found).clamp_(min=0)

    def reset(self) -> None:
        self.place(0)
        self.begin([0] * len(self.begins))


@dataclass
class SideState:
    """The buffers of one side (K or V) of one layer; shapes as in planner/formats/kv_format.py."""

    form: SideFormat
    dim: int
    values: Tensor
    scale: Tensor | None = None
    residual: Tensor | None = None
    sinks: Tensor | None = None
    mean: Tensor | None = None
    tensor: Tensor | None = None
    """What NVFP4's scales are multiples of (block_scales.py)."""
    affine: Tensor | None = None
    """Affine maps, the same for every sequence (affine.py)."""

    @property
    def sink_tokens(self) -> int:
        return self.form.sinks if self.form.quantized else 0

    def packed_end(self, total: int) -> int:
        """One past the last packed position when the cache holds `total` tokens."""
        return self.sink_tokens + self.form.packed_tokens(total)

    def oldest(self, total: int) -> int:
        """First position from which everything up to `total` is still held."""
        kept = self.packed_end(total) - self.values.shape[2]
        return kept if kept > self.sink_tokens else 0

    def tensors(self) -> tuple[Tensor, ...]:
        held = [self.values, self.scale, self.tensor, self.residual, self.sinks, self.mean]
        return tuple(t for t in (*held, self.affine) if t is not None)

    def row(self, row: int) -> Self:
        """One sequence's part: the same memory."""
        names = ("values", "scale", "residual", "sinks", "mean", "tensor")
        held = {name: getattr(self, name) for name in names}
        return replace(self, **{n: t[row : row + 1] for n, t in held.items() if t is not None})


@dataclass
class LayerState:
    """Both sides of one layer, its window (None = full attention), and the cache's clock."""

    key: SideState
    value: SideState
    window: int | None
    clock: Clock
    rotated: bool = False
    """Whether quantized sides hold rotated channels (see rotation.py)."""
    kernels: bool = True
    """Whether the GPU kernels may run this layer; False = the reference, to compare."""
    aligned: bool = False
    """Whether a token sees only its own aligned chunk of `window` tokens, counted from the end of
    its sequence's padding, not the last `window` (Llama 4)."""
    latent: bool = False
    """Whether keys are latents and values rotary keys (runtime/latent.py)."""

    @classmethod
    def allocate(
        cls,
        form: KVFormat,
        *,
        batch: int,
        heads: int,
        key_dim: int,
        value_dim: int,
        tokens: int,
        window: int | None,
        clock: Clock,
        dtype: torch.dtype,
        rotated: bool = False,
        kernels: bool = True,
        aligned: bool = False,
        latent: bool = False,
    ) -> Self:
        """Allocate the planner's buffers for `tokens` tokens.

        `dtype` is the 16-bit type of what is not quantized (bfloat16 or float16).
        """
        held: dict[str, dict[str, Tensor]] = {"k": {}, "v": {}}
        for buffer in form.buffers(batch, heads, key_dim, value_dim, tokens):
            kind = dtype if buffer.dtype == "bfloat16" else getattr(torch, buffer.dtype)
            side, name = buffer.name.split("_", 1)
            make = _START.get(name, torch.empty)
            held[side][name] = make(buffer.shape, dtype=kind, device=clock.device.device)
        key = SideState(form.key.within(tokens), key_dim, **held["k"])
        value = SideState(form.value.within(tokens), value_dim, **held["v"])
        return cls(key, value, window, clock, rotated, kernels, aligned, latent)

    @cached_property
    def rows(self) -> list[Self]:
        """The parts of a batch's sequences, under the batch's clock."""
        return [self.row(row, self.clock) for row in range(len(self.clock.begins))]

    def row(self, row: int, clock: Clock) -> Self:
        """One sequence's part of the layer, under `clock`: the same memory."""
        return replace(self, key=self.key.row(row), value=self.value.row(row), clock=clock)

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for side in (self.key, self.value) for t in side.tensors())
