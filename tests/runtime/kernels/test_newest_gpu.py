"""Decode attention that turns and appends the step's own token, against the launches that do it
apart: the same bytes in the cache, the same attention; eager, and replayed from a graph."""

from dataclasses import dataclass

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.runtime import kernels, reference
from kvpareto.runtime.cache.layer_state import LayerState
from kvpareto.runtime.kernels import cuda_decode, rope_append
from kvpareto.runtime.kernels.cuda_decode import NewToken
from tests.support.kernel_states import buffers, filled_state, noise
from tests.support.runtime_builders import relative_error

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TOLERANCE = 1e-2  # bfloat16 operands and output


@dataclass(frozen=True)
class Case:
    text: str = "k4v4-g64"
    dim: int = 128
    group: int = 4
    tokens: int = 300
    batch: int = 1
    heads: int = 2
    starts: tuple[int, ...] | None = None
    window: int | None = None
    capacity: int | None = None

    def state(self) -> LayerState:
        return filled_state(
            self.text, self.tokens, batch=self.batch, heads=self.heads, dim=self.dim,
            starts=self.starts, window=self.window, outliers=True, device="cuda",
            capacity=self.capacity or self.tokens + 40,
        )  # fmt: skip

    def new(self, step: int) -> NewToken:
        """Queries, keys and values as one projection of all three leaves them."""
        counts = (self.heads * self.group, self.heads, self.heads)
        wide = noise(self.batch, 1, sum(counts) * self.dim, seed=step, device="cuda", outliers=True)
        parts = wide.split([count * self.dim for count in counts], -1)
        half = noise(self.batch, 1, self.dim // 2, seed=70 + step, device="cuda").float()
        angle = torch.cat((half, half), -1)
        heads = (part.view(self.batch, 1, -1, self.dim) for part in parts)
        return NewToken(*heads, angle.cos().bfloat16(), angle.sin().bfloat16())


CASES = (
    *(Case(tokens=tokens) for tokens in (1, 31, 32, 33, 511, 4099)),
    *(Case(group=group) for group in (1, 2, 7, 8, 12, 16)),
    *(Case(dim=dim, text="k4v4-g32") for dim in (32, 64, 256)),
    Case(text="k8v2-g32", dim=64),
    Case(text="k2v8", dim=32),
    Case(text="k2v2-g32"),
    Case(text="k8v8"),
    Case(text="k4v4", dim=256, group=8),
    Case(batch=3, starts=(0, 17, 299), tokens=300),
    Case(batch=70, heads=4, group=2, tokens=100),
    Case(batch=40, heads=4, group=4, tokens=2000),
    Case(window=100, capacity=256, tokens=1000),
    Case(window=64, capacity=65, tokens=200, batch=2, starts=(0, 150)),
)


def both(apart: LayerState, together: LayerState, new: NewToken) -> tuple[torch.Tensor, ...]:
    for state in (apart, together):
        state.clock.advance(1)
    scaling = new.query.shape[-1] ** -0.5
    turned = rope_append.rope_append(apart, *new)
    query = new.query.transpose(1, 2)
    found = cuda_decode.decode(query, together, scaling=scaling, new=new)
    expected = reference.attend(turned.float(), apart, scaling=scaling)
    return found, kernels.attend(turned, apart, scaling=scaling), expected


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_one_launch_leaves_the_same_bytes_and_attends_to_them(case: Case) -> None:
    apart, together = case.state(), case.state()
    assert cuda_decode.writes(together, case.new(0))
    for step in range(34):  # past the end of a warp's step
        found, other, expected = both(apart, together, case.new(step))
        for one, two in zip(buffers(apart), buffers(together), strict=True):
            assert torch.equal(one, two)
        assert relative_error(found, expected) < TOLERANCE
        if case.text == "k4v4-g64":  # blocks of the same shape
            assert torch.equal(found, other)


def test_a_graph_writes_where_the_clock_says() -> None:
    case = Case(tokens=2000, batch=3, starts=(0, 5, 1990), heads=8)
    apart, together = case.state(), case.state()
    held = case.new(0)
    query = held.query.transpose(1, 2)
    cuda_decode.decode(query, together, scaling=0.1, new=held)  # compiled; the last token again
    together = case.state()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        together.clock.device += 1
        out = cuda_decode.decode(query, together, scaling=0.1, new=held)
    for step in range(1, 20):
        new = case.new(step)
        for kept, fresh in zip(held, new, strict=True):
            kept.copy_(fresh)
        apart.clock.advance(1)
        turned = rope_append.rope_append(apart, *new)
        graph.replay()
        together.clock.follow(1)
        assert torch.equal(out, kernels.attend(turned, apart, scaling=0.1))
        for one, two in zip(buffers(apart), buffers(together), strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("text", ["k16v4", "k4v4-kc", "k4v4-g32+res8+sink4", "k4v4-pt"])
def test_formats_that_wait_are_left_to_the_others(text: str) -> None:
    case = Case(text=text)
    assert not cuda_decode.writes(case.state(), case.new(0))
