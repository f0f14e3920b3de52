"""Sequences of unlike lengths in pages that lie anywhere, for tests of kernels over pages."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kvpareto.runtime.kernels.paged import reference
from kvpareto.runtime.kernels.paged.page_format import PageFormat


@dataclass
class PagedBatch:
    """`pages` [pages, heads, page tokens, row] hold what `key` and `value` [tokens, heads, D] of
    all sequences, one after the other, were packed to; `slots` [tokens] says where."""

    form: PageFormat
    pages: Tensor
    table: Tensor
    lengths: list[int]
    slots: Tensor
    key: Tensor
    value: Tensor

    @property
    def device_lengths(self) -> Tensor:
        return torch.tensor(self.lengths, dtype=torch.int32, device=self.pages.device)

    @property
    def starts(self) -> Tensor:
        """int32 [sequences + 1]: where each sequence's tokens begin."""
        return torch.tensor([0, *self.lengths]).cumsum(0).int().to(self.pages.device)


def paged_batch(
    name: str,
    dim: int,
    heads: int,
    lengths: list[int],
    *,
    page: int = 16,
    dtype: torch.dtype = torch.float16,
    device: str = "cpu",
    seed: int = 0,
) -> PagedBatch:
    """Keys with one loud channel, values off centre; pages nobody wrote hold 0xff bytes."""
    form = PageFormat.of(name, dim)
    assert form is not None
    generator = torch.Generator().manual_seed(seed)
    needed = [-(-length // page) for length in lengths]
    pages = torch.full((sum(needed) + 3, heads, page, form.row_bytes), 0xFF, dtype=torch.uint8)
    order = torch.randperm(len(pages), generator=generator).int()
    table = torch.zeros(len(lengths), max(needed), dtype=torch.int32)
    slots, at = [], 0
    for i, (length, count) in enumerate(zip(lengths, needed, strict=True)):
        table[i, :count] = order[at : at + count]
        at += count
        position = torch.arange(length)
        slots.append(table[i][position // page].long() * page + position % page)
    # multiples of 1/32, so that sums of the rotation are exact in any order
    shape = (sum(lengths), heads, dim)
    key = (torch.randn(shape, generator=generator) * 48).round().clamp(-255, 255) / 32
    value = (torch.randn(shape, generator=generator) * 32).round().clamp(-255, 255) / 32 + 0.25
    key[:, :, 3] += 6
    key, value = key.to(dtype), value.to(dtype)
    batch = PagedBatch(form, pages, table, lengths, torch.cat(slots), key, value)
    reference.write(pages, key, value, batch.slots, form)
    moved = {n: getattr(batch, n).to(device) for n in ("pages", "table", "slots", "key", "value")}
    return PagedBatch(form=form, lengths=lengths, **moved)
