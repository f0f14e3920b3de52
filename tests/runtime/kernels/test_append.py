"""Quantize-and-append in Triton leaves the very bytes the reference leaves."""

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.runtime import kernels, reference
from kvpareto.runtime.cache.layer_state import LayerState
from kvpareto.runtime.kernels import triton_append
from tests.support.kernel_states import buffers, empty_state, noise

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHUNKS = (1, 1, 3, 45, 1, 70, 1, 27)
FORMATS = [
    ("k4v4-g64", 128),
    ("k8v2-g32", 64),
    ("k4v4-g64", 80),
    ("k2v8", 96),
    ("k16v4-g64+res8+sink4", 64),
    ("k4v2-kc-g64+res16+sink2", 64),
    ("k4v4-pb16-g32", 64),
    ("k2v2-kc64", 64),
    ("k16v16", 64),
    ("k4v4-pt", 64),
    ("k8v2-pt+res8+sink4", 64),
    ("k16v4-pt+res16", 80),
    ("k6v5-g32", 64),
    ("k3v6-g32", 96),
    ("k5v3+res8+sink4", 128),
    ("k3v3-kc-g64+res16+sink2", 64),
    ("k6v3-pb16-g32+clip80", 64),
    ("kfp8vfp8-g32", 80),
    ("kfp8v4-kc", 64),
    ("kfp8v3-pt", 64),
    ("knf4vnf4-g64", 128),
    ("klloyd3vlloyd2-g32", 64),
    ("klloyd2vnf4-kc", 64),
    ("k2v3-g64+clip65", 128),
    ("knvfp4vmxfp4", 128),
    ("kmxfp4vnvfp4+res8+sink4", 80),
    ("k4vnvfp4-kc", 64),
]


def feed(pair: tuple[LayerState, LayerState], chunks: tuple[int, ...], outliers: bool) -> None:
    """The same keys and values to the first state by the reference, to the second by kernels."""
    batch, heads, dim = 2, pair[0].key.values.shape[1], pair[0].key.dim
    for index, n in enumerate(chunks):
        key = noise(batch, n, heads, dim, seed=index, device=DEVICE, outliers=outliers)
        value = noise(batch, n, heads, dim, seed=100 + index, device=DEVICE)
        key, value = key.transpose(1, 2), value.transpose(1, 2)  # strided, as models give them
        for state in pair:
            state.clock.advance(n)
        reference.append(pair[0], key, value)
        kernels.append(pair[1], key, value)


@pytest.mark.parametrize(("text", "dim"), FORMATS, ids=[f"{t}-D{d}" for t, d in FORMATS])
def test_bytes_equal_the_references(text: str, dim: int) -> None:
    one = empty_state(text, batch=2, dim=dim, device=DEVICE)
    two = empty_state(text, batch=2, dim=dim, device=DEVICE)
    feed((one, two), CHUNKS, outliers=True)
    for expected, found in zip(buffers(one), buffers(two), strict=True):
        assert torch.equal(expected, found)


def test_a_sliding_layer_wraps_as_the_reference_does() -> None:
    one = empty_state("k4v4-g32", batch=2, tokens=56, window=40, device=DEVICE)
    two = empty_state("k4v4-g32", batch=2, tokens=56, window=40, device=DEVICE)
    feed((one, two), (17,) * 9, outliers=False)
    for expected, found in zip(buffers(one), buffers(two), strict=True):
        assert torch.equal(expected, found)


def test_nothing_beyond_the_length_is_written() -> None:
    state = empty_state("k4v4-g64", dim=128, tokens=64, device=DEVICE)
    state.clock.advance(21)
    triton_append.append(state, noise(1, 2, 21, 128, seed=3, device=DEVICE),
                         noise(1, 2, 21, 128, seed=4, device=DEVICE))  # fmt: skip
    for tensor in buffers(state):
        assert bool((tensor[:, :, 21:] == 255).all())
        assert not bool((tensor[:, :, :21] == 255).all())


def test_equal_channels_give_scale_zero_and_their_value_back() -> None:
    state = empty_state("k4v4-g64", dim=64, tokens=8, device=DEVICE)
    flat = torch.full((1, 2, 2, 64), -3.5, dtype=torch.bfloat16, device=DEVICE)
    state.clock.advance(2)
    triton_append.append(state, flat, flat)
    assert bool((reference.read(state.key, 0, 2) == -3.5).all())
    assert state.key.scale is not None
    assert bool((state.key.scale[:, :, :2, :, 0] == 0).all())


def test_per_tensor_pairs_read_no_length_on_the_host() -> None:
    state = empty_state("k4v4-pt+res8+sink2", batch=2, device=DEVICE)
    assert kernels.capturable(state, 1)
    one = empty_state("k4v4-pt+res8+sink2", batch=2, device=DEVICE)
    for fed in (one, state):
        fed.clock.starts.copy_(torch.tensor([0, 7]))
    feed((one, state), (5, 1, 9, 1), outliers=False)
    for expected, found in zip(buffers(one), buffers(state), strict=True):
        assert torch.equal(expected, found)
    state.clock.host = -1  # whoever looks there now is wrong
    state.clock.device += 1
    one.clock.advance(1)
    key, value = (noise(2, 2, 1, one.key.dim, seed=s, device=DEVICE) for s in (7, 8))
    reference.append(one, key, value)
    kernels.append(state, key, value)
    for expected, found in zip(buffers(one), buffers(state), strict=True):
        assert torch.equal(expected, found)


@pytest.mark.parametrize("chunks", [(40,), (33, 7), (35, 1, 1, 3)], ids=str)
@pytest.mark.parametrize("text", ["k4v4-pt+res8+sink2", "k8v2-pt+res32"])
def test_a_prompt_longer_than_what_is_packed_of_it(text: str, chunks: tuple[int, ...]) -> None:
    """The packed ring has no room for the tokens that stay in 16 bits."""
    one, two = (empty_state(text, batch=2, tokens=40, device=DEVICE) for _ in range(2))
    assert two.key.values.shape[2] < chunks[0]
    feed((one, two), chunks, outliers=True)
    for expected, found in zip(buffers(one), buffers(two), strict=True):
        assert torch.equal(expected, found)


def test_a_window_shorter_than_what_stays_in_16_bits() -> None:
    one, two = (
        empty_state("k4v4-pt+res32", batch=2, tokens=50, window=20, device=DEVICE) for _ in range(2)
    )
    feed((one, two), (30, 30, 30, 30), outliers=False)  # a chunk wraps the ring of 18
    for side, other in zip((one.key, one.value), (two.key, two.value), strict=True):
        first = side.oldest(120)
        assert torch.equal(reference.read(side, first, 120), reference.read(other, first, 120))


def test_a_cache_that_packs_nothing_stays_in_16_bits() -> None:
    one, two = (empty_state("k4v4-pt+res64", batch=2, tokens=40, device=DEVICE) for _ in range(2))
    assert two.key.values.shape[2] == 0
    feed((one, two), (5, 1), outliers=False)
    for expected, found in zip(buffers(one), buffers(two), strict=True):
        assert torch.equal(expected, found)
