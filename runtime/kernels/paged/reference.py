"""What the kernels over pages compute, in plain torch: the truth of their tests."""

import torch
from torch import Tensor

from .page_format import PageFormat, pack, rotate, rotate_back, unpack


def write(pages: Tensor, key: Tensor, value: Tensor, slots: Tensor, form: PageFormat) -> None:
    """Write tokens [n, heads, D] to the slots [n] of pages [pages, heads, page tokens, row].

    Slot s is token s % page tokens of page s // page tokens; a negative one is left out.
    """
    rows = torch.cat([pack(key, form), pack(value, form)], -1)
    size = pages.shape[2]
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            pages[slot // size, :, slot % size] = rows[token]


def read(pages: Tensor, table: Tensor, length: int, form: PageFormat) -> tuple[Tensor, Tensor]:
    """One sequence's keys and values, float32 [heads, length, D], rotated where the format is."""
    rows = pages[table.long()].permute(1, 0, 2, 3).flatten(1, 2)[:, :length]
    return unpack(rows[..., : form.side_bytes], form), unpack(rows[..., form.side_bytes :], form)


def attend(
    query: Tensor,
    pages: Tensor,
    table: Tensor,
    length: int,
    form: PageFormat,
    *,
    scaling: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
) -> Tensor:
    """The last tokens of one sequence, [n, query heads, D], over all of it -> [n, query heads, D].

    `window`: how many tokens back are seen, the token itself among them; 0: all. `sinks`: one more
    logit a query head in each row's softmax. A sequence of no tokens gives zeros.
    """
    if length == 0:
        return torch.zeros_like(query)
    key, value = read(pages, table, length, form)
    turned = rotate(query) if form.rotated else query
    group = query.shape[1] // key.shape[0]
    key, value = (x.repeat_interleave(group, 0) for x in (key, value))
    scores = torch.einsum("nhd,htd->hnt", turned.float(), key) * scaling * form.query_factor
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    at = torch.arange(length, device=query.device)
    last = length - len(query) + torch.arange(len(query), device=query.device)
    hidden = at > last[:, None]
    if window:
        hidden |= at <= last[:, None] - window
    scores = scores.masked_fill(hidden, float("-inf"))
    if sinks is not None:
        extra = sinks.float()[:, None, None].expand(-1, len(query), 1)
        scores = torch.cat([scores, extra], -1)
    weights = scores.softmax(-1)[..., :length]
    mix = torch.einsum("hnt,htd->nhd", weights, value)
    return (rotate_back(mix) if form.rotated else mix).to(query.dtype)
