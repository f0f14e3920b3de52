"""The general Triton attention against the reference, on poisoned buffers."""

from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.runtime import kernels, reference
from kvpareto.runtime.cache.layer_state import LayerState
from kvpareto.runtime.kernels import triton_attend
from tests.support.kernel_states import filled_state, noise
from tests.support.runtime_builders import relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 1e-2  # bfloat16 operands and output


def check(state: LayerState, group: int, queries: int, **options: Any) -> None:
    """Within tolerance of the reference, and bit for bit the same twice."""
    batch, heads = state.key.values.shape[:2]
    query = noise(batch, heads * group, queries, state.key.dim, seed=9, device=DEVICE)
    found = triton_attend.attend(query, state, scaling=state.key.dim**-0.5, **options)
    again = triton_attend.attend(query, state, scaling=state.key.dim**-0.5, **options)
    expected = reference.attend(query.float(), state, scaling=state.key.dim**-0.5, **options)
    assert relative_error(found, expected) < TOLERANCE
    assert torch.equal(found, again)


@pytest.mark.parametrize("queries", [1, 23])
@pytest.mark.parametrize(
    ("text", "dim"),
    [("k4v4-g64", 128), ("k8v2-g32", 64), ("k4v4-g64", 80), ("k2v4", 96), ("k16v4-g64", 64),
     ("k4v16-kc", 64), ("k4v2-kc-g64+res16+sink2", 64), ("k4v4-pb16-g32", 64), ("k8v8-pt", 64),
     ("k16v16", 64), ("k6v5-g32", 64), ("k3v6-g32", 96), ("k5v3-kc-g64+res16+sink2", 64),
     ("kfp8vfp8-g32", 80), ("knf4vlloyd3-g64", 128), ("klloyd2vfp8-pt", 64), ("k3v2+clip70", 64),
     ("knvfp4vmxfp4", 128), ("kmxfp4vnvfp4+res16+sink2", 80)],
)  # fmt: skip
def test_formats(text: str, dim: int, queries: int) -> None:
    check(filled_state(text, 150, dim=dim, outliers=True, device=DEVICE), 3, queries)


@pytest.mark.parametrize("tokens", [1, 17, 127, 129])
def test_odd_lengths(tokens: int) -> None:
    check(filled_state("k4v4-g32", tokens, device=DEVICE), 2, 1)


@pytest.mark.parametrize("group", [1, 5, 16])
def test_query_groups(group: int) -> None:
    check(filled_state("k4v4-g64", 70, device=DEVICE), group, 3)


def test_left_padding_hides_its_tokens() -> None:
    state = filled_state("k4v4-g32+res16", 90, batch=3, starts=(0, 17, 85), device=DEVICE)
    check(state, 2, 1)
    check(state, 2, 5)


@pytest.mark.parametrize("queries", [1, 9])
def test_windows_over_wrapped_buffers(queries: int) -> None:
    state = filled_state("k4v4-g32+sink3", 150, window=40, capacity=64, device=DEVICE)
    check(state, 2, queries)


def test_soft_caps_and_sink_logits() -> None:
    state = filled_state("k8v8-g64", 60, device=DEVICE)
    check(state, 2, 4, softcap=3.0, sinks=torch.tensor([0.3, -2.0, 5.0, 1.0], device=DEVICE))


def test_the_package_chooses_a_way_and_says_what_a_graph_may_hold() -> None:
    state = filled_state("k4v4-g64", 40, dim=128, device=DEVICE)
    assert kernels.supports(state)
    assert kernels.capturable(state, 1)
    query = noise(1, 4, 1, 128, seed=5, device=DEVICE)
    found = kernels.attend(query, state, scaling=0.1)
    assert relative_error(found, reference.attend(query.float(), state, scaling=0.1)) < TOLERANCE
