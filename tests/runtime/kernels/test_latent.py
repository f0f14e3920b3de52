"""The latents' kernel and the pieces of a chunk against the plain way, on poisoned buffers."""

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.formats.kv_format import KVFormat
from kvpareto.runtime import latent as plain
from kvpareto.runtime import reference
from kvpareto.runtime.cache.layer_state import Clock, LayerState
from kvpareto.runtime.kernels import latent
from tests.support.kernel_states import noise
from tests.support.runtime_builders import relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RANK, ROPE = 64, 16


def filled(
    text: str, tokens: int, *, batch: int = 1, starts: tuple[int, ...] = (), capacity: int = 200
) -> LayerState:
    """A latent layer that holds `tokens` tokens; what was not written is NaN."""
    config = Configuration.parse(f"w16a16-{text}")
    clock = Clock(batch, torch.device(DEVICE))
    state = LayerState.allocate(
        KVFormat.of(config, 0).of_latent(config.rope_bits),
        batch=batch,
        heads=1,
        key_dim=RANK,
        value_dim=ROPE,
        tokens=capacity,
        window=None,
        clock=clock,
        dtype=torch.bfloat16,
        latent=True,
    )
    for side in (state.key, state.value):
        for tensor in side.tensors():
            tensor.view(torch.uint8).fill_(255)
    if starts:
        clock.starts.copy_(torch.tensor(starts))
    clock.advance(tokens)
    shape = batch, 1, tokens
    reference.append(
        state,
        noise(*shape, RANK, seed=1, device=DEVICE),
        noise(*shape, ROPE, seed=2, device=DEVICE),
    )
    return state


def asked(state: LayerState, heads: int, n: int) -> tuple[Tensor, Tensor]:
    batch = state.key.values.shape[0]
    wide, narrow = (
        noise(batch, heads, n, dim, seed=seed, device=DEVICE).float()
        for dim, seed in ((RANK, 3), (ROPE, 4))
    )
    return wide, narrow


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("heads", "n"), [(4, 1), (20, 1), (3, 11)])
@pytest.mark.parametrize("text", ["k16v16", "k8v8-g32", "k4v4-g32+res16+sink2", "k4v4-g32+rope8"])
def test_the_kernel_is_the_plain_way(
    text: str, heads: int, n: int, splits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent, "_splits", lambda *_: splits)
    state = filled(text, 101)
    query = asked(state, heads, n)
    found = latent.attend(*query, state, 0.1)
    assert relative_error(found, plain.attend_latents(*query, state, 0.1)) < 1e-5


def test_left_padding_hides_its_tokens() -> None:
    state = filled("k8v8-g32", 70, batch=3, starts=(0, 17, 69))
    for n in (1, 5):
        query = asked(state, 4, n)
        found = latent.attend(*query, state, 0.1)
        assert relative_error(found, plain.attend_latents(*query, state, 0.1)) < 1e-5


@pytest.mark.parametrize("text", ["k16v16", "k8v8-g32", "k4v4-g32+res16+sink2"])
def test_pieces_are_written_out_as_they_are_read(text: str) -> None:
    state = filled(text, 101)
    for side in (state.key, state.value):
        found = latent.write_out(side, state, 7, 83, torch.float32)
        assert relative_error(found, reference.read(side, 0, 101)[:, 0, 7:90]) < 1e-6


class Expand:
    """A layer's own matrix: 3 heads of 24 key and 32 value channels."""

    nope, value = 24, 32

    def __init__(self) -> None:
        self.weight = noise(3 * 56, RANK, seed=5, device=DEVICE).float()

    def __call__(self, latents: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor]:
        both = (latents @ self.weight.T).unflatten(-1, (3, 56)).transpose(1, 2)
        turned = rotary[:, None].expand(-1, 3, -1, -1)
        return torch.cat((both[..., :24], turned), -1), both[..., 24:]


def by_torch(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    """torch's fused attention written out: what `expanded` calls on a GPU."""
    scores = query @ key.mT * kwargs["scale"]
    if args[3]:
        n = scores.shape[-1]
        scores.masked_fill_(torch.ones(n, n, dtype=torch.bool, device=DEVICE).triu(1), -torch.inf)
    return scores.softmax(-1) @ value, scores.logsumexp(-1), None, None


@pytest.mark.parametrize(("tokens", "n"), [(40, 40), (101, 13), (101, 40), (96, 32)])
def test_pieces_merge_to_the_whole(tokens: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent, "_efficient_attention", by_torch)
    monkeypatch.setattr(latent, "latent_piece", lambda *_: 16)
    state, up = filled("k8v8-g32", tokens), Expand()
    query = noise(1, 3, n, 24 + ROPE, seed=6, device=DEVICE).float()
    expected = plain.expanded(query, state, up, 0.2)  # type: ignore[arg-type]
    found = latent.expanded(query, state, up, 0.2)
    assert relative_error(found, expected) < 1e-5
