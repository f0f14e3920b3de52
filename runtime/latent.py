"""Latent attention (MLA) over packed latents: what is cached is never expanded to memory whole.

transformers' classes hand the cache a latent [B, 1, n, R] and one rotary key [B, 1, n, P], and
expand both to keys and values of every head (`expand_kv`) before they attend. Here `expand_kv`
hands the packed layer on unread, instance by instance (`pass_latents`), and attention works in one
of two ways that give the same:

    absorbed   q W_k meets the latents themselves, and W_v works on their weighted sum:
               R + P and R products a pair of tokens and head. Decoding.
    expanded   a bounded piece of latents becomes keys and values, which the queries attend to:
               D_k + D_v products a pair, and as many for each latent and head. Chunks.

A layer's latents lie on the key side of its state, its rotary keys on the value side. The plain
functions here are the truth; kernels/latent.py stands behind the same two on a GPU.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from . import reference
from .cache.layer_state import LayerState
from .gpu_kernels import gpu_kernels


@dataclass(frozen=True, slots=True)
class Expansion:
    """`kv_b_proj` of one layer: latents to `nope` key and `value` value channels of each head."""

    project: nn.Module
    nope: int
    value: int

    @classmethod
    def of(cls, module: Any) -> Self:
        """Of a transformers attention module."""
        return cls(module.kv_b_proj, module.qk_nope_head_dim, module.v_head_dim)

    def weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """W_k [H, nope, R] and W_v [H, R, value], views of one matrix; of a packed one they are
        valid until the next product of packed weights."""
        dense = _dense(self.project, dtype)  # [H (nope + value), R]
        heads = dense.unflatten(0, (-1, self.nope + self.value))
        return heads[:, : self.nope], heads[:, self.nope :].mT

    def __call__(self, latents: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [B, H, T, nope + P] and values [B, H, T, value] of [B, T, R] and [B, T, P]."""
        both = self.project(latents).unflatten(-1, (-1, self.nope + self.value)).transpose(1, 2)
        keys, values = both.split((self.nope, self.value), dim=-1)
        turned = rotary[:, None].expand(-1, keys.shape[1], -1, -1)
        return torch.cat((keys, turned), dim=-1), values


def _dense(project: Any, dtype: torch.dtype) -> Tensor:
    """A linear layer's weight [out, in], packed or not."""
    if isinstance(project, nn.Linear):
        return project.weight
    from .weights.linear import dense

    return dense(project, dtype)


def pass_latents(model: nn.Module) -> list[Any]:
    """Let `model`'s latent attentions hand a packed layer on; the modules changed."""
    changed = []
    modules: Iterator[Any] = model.modules()
    for module in modules:
        own = getattr(module, "expand_kv", None)
        if own is not None and "expand_kv" not in module.__dict__:
            module.expand_kv = partial(_expand_kv, own)
            changed.append(module)
    return changed


def restore(changed: list[Any]) -> None:
    """Give modules that `pass_latents` changed their own way back."""
    for module in changed:
        module.__dict__.pop("expand_kv", None)
    changed.clear()


def _expand_kv(own: Callable[..., Any], latents: Any, rotary: Any) -> Any:
    return own(latents, rotary) if isinstance(latents, Tensor) else (latents, rotary)


def attend(module: Any, query: Tensor, state: LayerState, scaling: float) -> Tensor:
    """Causal attention of the cache's last n tokens: [B, H, n, nope + P] -> [B, H, n, value]."""
    up = Expansion.of(module)
    call = partial(_attend, state=state, up=up, scaling=scaling)
    seam = state.clock.seam
    return call(query) if seam is None else seam(query, up.value, call)


def supported_by_kernels(state: LayerState) -> bool:
    """Whether the kernels take this layer, and a graph may hold a pass of one token."""
    if not (state.kernels and state.clock.device.is_cuda):
        return False
    kernels = gpu_kernels()
    return kernels is not None and bool(kernels.appends_on_device(state))


def _attend(query: Tensor, state: LayerState, up: Expansion, scaling: float) -> Tensor:
    if supported_by_kernels(state):
        from .kernels import latent

        if query.shape[2] > 1 and latent.takes_chunks(state, query, up.nope, up.value):
            return latent.expanded(query, state, up, scaling)
        return absorbed(query, state, up, scaling, latent.attend)
    if query.shape[2] == 1:
        return absorbed(query, state, up, scaling, attend_latents)
    return expanded(query, state, up, scaling)


Absorbed = Callable[[Tensor, Tensor, LayerState, float], Tensor]
"""(q W_k [B, H, n, R], rotary part [B, H, n, P], state, scaling) -> [B, H, n, R]."""


def absorbed(
    query: Tensor, state: LayerState, up: Expansion, scaling: float, over: Absorbed
) -> Tensor:
    """Attention to the latents themselves; `over` is what computes that."""
    keys, values = up.weights(query.dtype)
    plain, turned = query.split((up.nope, query.shape[-1] - up.nope), dim=-1)
    asked = _by_head(plain, keys)
    return _by_head(over(asked, turned, state, scaling), values)


def _by_head(x: Tensor, weight: Tensor) -> Tensor:
    """[B, H, n, I] by a matrix [H, I, O] of each head: [B, H, n, O]."""
    batch, heads, n, _ = x.shape
    rows = x.transpose(0, 1).reshape(heads, batch * n, -1)
    return torch.bmm(rows, weight).unflatten(1, (batch, n)).transpose(0, 1)


def attend_latents(query: Tensor, turned: Tensor, state: LayerState, scaling: float) -> Tensor:
    """The plain `Absorbed`: latents and rotary keys side by side are the keys of one KV head, the
    latents its values."""
    total, n = state.clock.host, query.shape[2]
    latents, rotary = (reference.read(side, 0, total) for side in (state.key, state.value))
    hidden = reference.hidden_pairs(state, total - n, n, 0, total)
    asked, keys = torch.cat((query, turned), dim=-1), torch.cat((latents, rotary), dim=-1)
    mixed = reference.attend_block(asked, keys, latents, hidden, scaling, None, None)
    return mixed.to(query.dtype)


def expanded(query: Tensor, state: LayerState, up: Expansion, scaling: float) -> Tensor:
    """The plain way of a chunk: every latent expanded, in the query's dtype."""
    total, n = state.clock.host, query.shape[2]
    held = (reference.read(side, 0, total)[:, 0] for side in (state.key, state.value))
    keys, values = up(*(x.to(query.dtype) for x in held))
    mixed = []
    for start in range(0, n, reference.QUERY_BLOCK):
        block = query[:, :, start : start + reference.QUERY_BLOCK]
        hidden = reference.hidden_pairs(state, total - n + start, block.shape[2], 0, total)
        found = reference.attend_block(
            block, keys.float(), values.float(), hidden, scaling, None, None
        )
        mixed.append(found)
    return torch.cat(mixed, dim=2).to(query.dtype)
