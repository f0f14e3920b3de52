"""One layer's packed state, poisoned, filled by the reference: what kernel tests start from."""

import torch
from torch import Tensor

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.formats.kv_format import KVFormat
from kvpareto.runtime import reference
from kvpareto.runtime.cache.layer_state import Clock, LayerState


def empty_state(
    text: str,
    *,
    batch: int = 1,
    heads: int = 2,
    dim: int = 64,
    tokens: int = 200,
    window: int | None = None,
    device: str = "cpu",
) -> LayerState:
    """A state with room for `tokens` tokens; every byte 0xFF: NaN scales, NaN 16-bit rows."""
    state = LayerState.allocate(
        KVFormat.of(Configuration.parse(f"w16a16-{text}"), 0),
        batch=batch,
        heads=heads,
        key_dim=dim,
        value_dim=dim,
        tokens=tokens,
        window=window,
        clock=Clock(batch, torch.device(device)),
        dtype=torch.bfloat16,
    )
    for side in (state.key, state.value):
        for tensor in side.tensors():
            tensor.view(torch.uint8).fill_(255)
        if side.tensor is not None:  # an append sets it before the kernels are called
            side.tensor.copy_(2.0 ** -torch.arange(3.0, 3.0 + side.tensor.numel()).view(batch, -1))
    return state


def noise(*shape: int, seed: int, device: str = "cpu", outliers: bool = False) -> Tensor:
    """Normal bfloat16; with `outliers`, one channel 30 times and every 97th row 4 times larger."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    if outliers:
        x[..., 3] *= 30
        x[..., ::97, :] *= 4
    return x.to(device=device, dtype=torch.bfloat16)


def filled_state(
    text: str,
    tokens: int,
    *,
    outliers: bool = False,
    starts: tuple[int, ...] | None = None,
    capacity: int | None = None,
    batch: int = 1,
    heads: int = 2,
    dim: int = 64,
    window: int | None = None,
    device: str = "cpu",
) -> LayerState:
    """`tokens` tokens appended by the reference, in halves, or in steps that a window allows."""
    state = empty_state(
        text, batch=batch, heads=heads, dim=dim, tokens=capacity or tokens + 3, window=window,
        device=device,
    )  # fmt: skip
    if starts is not None:
        state.clock.begin(starts)
    shape = (batch, heads, tokens, dim)
    key = noise(*shape, seed=1, device=device, outliers=outliers)
    value = noise(*shape, seed=2, device=device, outliers=outliers)
    step = max(1, tokens // 2 if window is None else 16)
    for at in range(0, tokens, step):
        end = min(tokens, at + step)
        state.clock.advance(end - at)
        reference.append(state, key[:, :, at:end], value[:, :, at:end])
    return state


def buffers(state: LayerState) -> list[Tensor]:
    """Every buffer as bytes, so that poison compares equal to itself."""
    return [t.view(torch.uint8) for side in (state.key, state.value) for t in side.tensors()]
