"""Decode in CUDA C++ and staged chunks on a GPU, against the reference, on poisoned buffers."""

from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.runtime import kernels, reference
from kvpareto.runtime.cache.layer_state import LayerState
from kvpareto.runtime.kernels import cuda_decode, staged
from kvpareto.runtime.kernels import staging_buffers as staged_room
from kvpareto.runtime.kernels.cuda_stage import Stager
from tests.support.kernel_states import filled_state, noise
from tests.support.runtime_builders import relative_error

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TOLERANCE = 1e-2  # bfloat16 operands and output


def check(
    state: LayerState, group: int, queries: int, *, loud: float = 1.0, **options: Any
) -> None:
    """Within tolerance of the reference, and bit for bit the same twice."""
    batch, heads = state.key.values.shape[:2]
    query = noise(batch, heads * group, queries, state.key.dim, seed=9, device="cuda") * loud
    found = kernels.attend(query, state, scaling=state.key.dim**-0.5, **options)
    again = kernels.attend(query, state, scaling=state.key.dim**-0.5, **options)
    expected = reference.attend(query.float(), state, scaling=state.key.dim**-0.5, **options)
    assert relative_error(found, expected) < TOLERANCE
    assert torch.equal(found, again)


def check_decode(state: LayerState, group: int, **options: Any) -> None:
    heads = state.key.values.shape[1]
    query = torch.empty(1, heads * group, 1, state.key.dim, dtype=torch.bfloat16)
    assert cuda_decode.supports(state, query)
    check(state, group, 1, **options)


@pytest.mark.parametrize("tokens", [1, 17, 127, 129, 4099])
def test_decode_at_odd_lengths(tokens: int) -> None:
    check_decode(filled_state("k4v4-g64", tokens, dim=128, device="cuda"), 4, loud=2.0)


@pytest.mark.parametrize(
    "text",
    ["k8v8-g64", "k2v2-g64", "k16v16", "k16v4-g64", "k8v16-g64", "k8v8-g32", "k2v2-g32", "k8v4",
     "k4v4-kc-g64", "k2v2-kc128", "k8v8-pt", "k4v4-pb32-g64", "k4v4-g64+res128+sink4",
     "k4v4-kc-g64+res128+sink4", "k16v4-g64+res128+sink4", "k4v16-g64+res128+sink4"],
)  # fmt: skip
def test_decode_of_formats(text: str) -> None:
    check_decode(filled_state(text, 1000, dim=128, outliers=True, device="cuda"), 4, loud=0.3)


@pytest.mark.parametrize(
    "text",
    ["k6v5-g64", "k3v3-g64", "kfp8vfp8", "knf4vlloyd2-g64", "k5v3-kc-g64+res128", "knvfp4vmxfp4"],
)
def test_the_general_kernel_decodes_other_widths_and_tables(text: str) -> None:
    state = filled_state(text, 1000, dim=128, outliers=True, device="cuda")
    query = torch.empty(1, 8, 1, 128, dtype=torch.bfloat16)
    assert not cuda_decode.supports(state, query)
    check(state, 4, 1, loud=0.3)


@pytest.mark.parametrize("dim", [64, 80, 96, 128, 256])
@pytest.mark.parametrize("text", ["k4v4", "k8v4-kc", "k16v16"])
def test_decode_of_head_sizes(text: str, dim: int) -> None:
    check_decode(filled_state(text, 300, dim=dim, device="cuda"), 3)


@pytest.mark.parametrize("group", [1, 2, 7, 8, 12, 16])
def test_decode_of_query_groups(group: int) -> None:
    check_decode(filled_state("k4v4-g64", 300, dim=128, device="cuda"), group)


def test_decode_behind_left_padding() -> None:
    starts = (0, 17, 485)
    state = filled_state("k4v4-g64+res32", 500, batch=3, starts=starts, dim=128, device="cuda")
    check_decode(state, 4)


@pytest.mark.parametrize("text", ["k4v4-g64", "k4v4-kc-g64", "k4v4-g64+sink4", "k16v16"])
def test_decode_of_wrapped_windows(text: str) -> None:
    state = filled_state(text, 1000, window=100, capacity=256, dim=128, device="cuda")
    check_decode(state, 4)


def test_decode_with_soft_cap_and_sink_logits() -> None:
    state = filled_state("k4v4-g64", 300, dim=128, device="cuda")
    check_decode(state, 2, softcap=20.0, sinks=torch.tensor([0.3, -2.0, 5.0, 1.0], device="cuda"))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    "text",
    ["k4v4-g32", "k2v8-kc+res16+sink5", "k16v16", "k8v2-pt", "k2v4", "k6v5-g32", "k3v6-kc+res16",
     "kfp8v3-pt", "kfp8vfp8", "knf4vlloyd3-g32", "klloyd2v2-kc+clip70", "knvfp4vmxfp4",
     "k4vnvfp4-kc+res16"],
)  # fmt: skip
def test_staging_rounds_what_the_reference_reads(text: str, parts: int) -> None:
    state = filled_state(text, 110, dim=96, device="cuda")
    each = 64 // parts
    staged_ = torch.full((2, parts, 2, each, 96), torch.nan, dtype=torch.bfloat16, device="cuda")
    Stager(state, torch.bfloat16).stage(46, staged_[0], staged_[1])
    for side, out in zip((state.key, state.value), staged_, strict=True):
        expected = reference.read(side, 46, 110).bfloat16()
        for part in range(parts):
            assert torch.equal(out[part], expected[0, :, part * each : (part + 1) * each])


@pytest.mark.parametrize("queries", [17, 256])
@pytest.mark.parametrize(
    ("text", "dim", "window"),
    [("k4v4-g64", 128, None), ("k8v2-g32", 64, None), ("k4v4", 96, None), ("k16v16", 128, None),
     ("k4v4-kc-g64+res128+sink4", 128, None), ("k4v4-g64", 128, 300), ("k6v3-g64", 128, None),
     ("kfp8vlloyd2-g32", 64, None), ("kmxfp4vnvfp4", 128, None)],
)  # fmt: skip
def test_staged_chunks(
    monkeypatch: pytest.MonkeyPatch, text: str, dim: int, window: int | None, queries: int
) -> None:
    monkeypatch.setattr(staged, "SEGMENT", 1024)  # several segments, and a part of one
    monkeypatch.setattr(staged_room, "segment_tokens", lambda *_: 1024)
    capacity = None if window is None else window + 300
    state = filled_state(text, 2900, dim=dim, window=window, capacity=capacity, device="cuda")
    assert staged.supports(state, queries)
    check(
        state, 4, queries, sinks=torch.randn(8, generator=torch.Generator().manual_seed(3)).cuda()
    )


@pytest.mark.parametrize("past", [0, 1024])
@pytest.mark.parametrize("dim", [64, 128, 256])
def test_a_whole_chunk_that_meets_itself_alone(
    monkeypatch: pytest.MonkeyPatch, dim: int, past: int
) -> None:
    monkeypatch.setattr(staged_room, "segment_tokens", lambda *_: 1024)
    state = filled_state("k4v4-g64", past + 1024, dim=dim, device="cuda")
    check(state, 4, 1024, sinks=torch.linspace(-1, 2, 8).cuda())


@pytest.mark.parametrize("window", [None, 300])
@pytest.mark.parametrize("text", ["k4v4-g64", "k8v2-kc+res64", "k16v16", "k4v4-pt"])
def test_staged_chunks_of_a_padded_batch(
    monkeypatch: pytest.MonkeyPatch, text: str, window: int | None
) -> None:
    """Sequences that begin at 0, in the past, within the chunk and after it."""
    monkeypatch.setattr(staged, "SEGMENT", 1024)
    monkeypatch.setattr(staged_room, "segment_tokens", lambda *_: 1024)
    capacity = None if window is None else window + 300
    starts = (0, 1234, 1900, 2000)
    state = filled_state(
        text, 2000, batch=4, starts=starts, dim=128, window=window, capacity=capacity, device="cuda"
    )
    query = noise(4, 8, 256, 128, seed=9, device="cuda")
    found = staged.attend(query, state, scaling=128**-0.5)
    expected = reference.attend(query.float(), state, scaling=128**-0.5)
    for row, begin in enumerate(starts):
        seen = max(0, begin - (2000 - 256))
        assert not found[row, :, :seen].any()
        if seen < 256:
            assert relative_error(found[row, :, seen:], expected[row, :, seen:]) < TOLERANCE
