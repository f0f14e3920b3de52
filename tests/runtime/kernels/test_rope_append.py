"""RoPE and append in one launch leave what the separate kernels leave, to the byte."""

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.runtime import kernels
from kvpareto.runtime.fused_kernels import rope
from kvpareto.runtime.kernels import rope_append
from tests.support.kernel_states import buffers, empty_state, noise

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def angles(batch: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    half = noise(batch, 1, dim // 2, seed=seed, device=DEVICE).float()
    whole = torch.cat((half, half), -1)
    return whole.cos().bfloat16(), whole.sin().bfloat16()


@pytest.mark.parametrize("shared", [True, False], ids=["one-angle", "angle-a-sequence"])
@pytest.mark.parametrize(
    ("text", "dim", "window"),
    [("k4v4-g64", 128, None), ("k8v2-g32", 64, None), ("k2v8", 32, None), ("k4v4-g32", 64, 3)],
)
def test_one_launch_leaves_the_same_bytes(
    text: str, dim: int, window: int | None, shared: bool
) -> None:
    apart, together = (
        empty_state(text, batch=2, dim=dim, tokens=5, window=window, device=DEVICE) for _ in "ab"
    )
    assert rope_append.supports(together, torch.bfloat16)
    for step in range(7 if window else 4):
        # rows wider than what is read, as joined projections give them
        wide = noise(2, 1, 10 * dim, seed=step, device=DEVICE, outliers=True)
        query, key, value = (
            part.view(2, 1, -1, dim) for part in wide.split((6 * dim, 2 * dim, 2 * dim), -1)
        )
        cos, sin = angles(1 if shared else 2, dim, 50 + step)
        for state in (apart, together):
            state.clock.advance(1)
        expected, turned = rope(query, key, cos, sin)
        kernels.append(apart, turned, value.transpose(1, 2))
        found = rope_append.rope_append(together, query, key, value, cos, sin)
        assert torch.equal(found, expected)
        for one, other in zip(buffers(apart), buffers(together), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("text", ["k16v4", "k4v4-kc", "k4v4-pb16-g32", "k4v4-g32+res8+sink4"])
def test_formats_that_wait_are_left_to_the_others(text: str) -> None:
    assert not rope_append.supports(empty_state(text), torch.bfloat16)
