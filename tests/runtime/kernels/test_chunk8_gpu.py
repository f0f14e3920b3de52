"""stage8.cu and chunk8.cu on a Hopper GPU, against the reference, on odd shapes."""

import pytest
import torch
from torch import Tensor

from kvpareto.planner.memory.activation.workspace import eight_head_bytes
from kvpareto.runtime import reference
from kvpareto.runtime.cache.layer_state import LayerState
from kvpareto.runtime.kernels import staged
from kvpareto.runtime.kernels.eight_bits import chunk8
from kvpareto.runtime.kernels.eight_bits import reference as plain
from tests.support.kernel_states import filled_state, noise
from tests.support.runtime_builders import relative_error

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9,
        reason="no Hopper GPU",
    ),
]
FORMATS = ["k4v4-g64", "k2v2-g32", "k4v2", "k4v4-pt", "k3v3-g64", "knf4vnf4-g64"]


def expected(query: Tensor, state: LayerState, begin: int) -> Tensor:
    total, group = state.clock.host, query.shape[1] // state.key.values.shape[1]
    sides = [reference.read(x, begin, total).bfloat16().float() for x in (state.key, state.value)]
    heads = [
        plain.attend(
            query[0, head].float(), *(x[0, head // group] for x in sides), query.shape[3] ** -0.5
        )
        for head in range(query.shape[1])
    ]
    return torch.stack(heads)[None]


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("dim", [64, 128])
def test_staged_tiles_are_the_reference_s(text: str, dim: int) -> None:
    state = filled_state(text, 300, dim=dim, outliers=True, device="cuda")
    kernels = chunk8.Chunk8(state, torch.bfloat16)
    room = torch.full((2 * eight_head_bytes(293, dim),), 255, dtype=torch.uint8, device="cuda")
    tiles = kernels.stage(7, 293, range(2), room)
    for head in range(2):
        key, value = (
            reference.read(x, 7, 300)[0, head].bfloat16().float() for x in (state.key, state.value)
        )
        assert relative_error(tiles.mean[head], plain.sampled_mean(key)) < 1e-5
        codes, scales = plain.quantized_tiles(key - tiles.mean[head], torch.int8)
        assert torch.equal(tiles.keys[head], plain.key_image(codes))
        assert torch.allclose(tiles.key_scales[head, :, 0], scales, rtol=1e-6)
        codes, scales = plain.quantized_tiles(value, torch.float8_e4m3fn)
        assert torch.equal(tiles.values[head], plain.value_image(codes))
        assert torch.allclose(tiles.value_scales[head, :, 0], scales, rtol=1e-6)


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize(
    ("queries", "tokens", "begin"),
    [(2, 2, 0), (128, 128, 0), (130, 300, 0), (300, 1000, 37), (257, 257, 0)],
)  # fmt: skip
@pytest.mark.parametrize("loud", [0.5, 4.0])
def test_chunks(dim: int, queries: int, tokens: int, begin: int, loud: float) -> None:
    state = filled_state("k4v4-g64", tokens, dim=dim, device="cuda")
    query = noise(1, 6, queries, dim, seed=9, device="cuda") * loud
    room = torch.empty(2 * eight_head_bytes(tokens, dim), dtype=torch.uint8, device="cuda")
    found = torch.full_like(query, torch.nan)
    chunk8.Chunk8(state, torch.bfloat16).attend(query, begin, tokens, dim**-0.5, room, found)
    assert relative_error(found, expected(query, state, begin)) < 1e-2  # e4m3 weights at a tie


def test_a_head_at_a_time_gives_the_same_bits() -> None:
    state = filled_state("k4v4-g64", 500, heads=3, dim=128, device="cuda")
    query = noise(1, 6, 200, 128, seed=9, device="cuda")
    kernels, results = chunk8.Chunk8(state, torch.bfloat16), []
    for heads in (1, 2, 3):
        room = torch.empty(heads * eight_head_bytes(500, 128), dtype=torch.uint8, device="cuda")
        results.append(torch.empty_like(query))
        kernels.attend(query, 0, 500, 0.1, room, results[-1])
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("parts", [2, 3, 7])
@pytest.mark.parametrize("dim", [64, 128])
def test_cut_units_add_up(monkeypatch: pytest.MonkeyPatch, dim: int, parts: int) -> None:
    state = filled_state("k4v4-g64", 1500, dim=dim, device="cuda")
    query = noise(1, 6, 500, dim, seed=9, device="cuda") * 2
    room = torch.empty(2 * eight_head_bytes(1500, dim), dtype=torch.uint8, device="cuda")
    spill = torch.full((9 * parts * (chunk8.part_bytes(dim) + 12),), 255, dtype=torch.uint8)
    plan = chunk8.CutPlan(9, 9, parts)  # of 6 heads, 3 units each
    monkeypatch.setattr(chunk8, "cut_plan", lambda *_: plan)
    for _ in range(2):  # counters are left over from the first time
        found = torch.full_like(query, torch.nan)
        kernels = chunk8.Chunk8(state, torch.bfloat16)
        kernels.attend(query, 0, 1500, dim**-0.5, room, found, spill.cuda())
        assert relative_error(found, expected(query, state, 0)) < 1e-2


def test_a_batch_in_one_launch_is_each_sequence_s() -> None:
    state = filled_state("k4v4-g64", 700, batch=3, dim=128, device="cuda")
    query = noise(3, 8, 250, 128, seed=9, device="cuda")
    results = []
    for heads in (1, 4, 6):  # of six
        room = torch.empty(heads * eight_head_bytes(700, 128), dtype=torch.uint8, device="cuda")
        out = torch.full((3, 250, 8, 128), torch.nan, dtype=torch.bfloat16, device="cuda")
        kernels = chunk8.Chunk8(state, torch.bfloat16)
        kernels.attend(query, 0, 700, 0.1, room, out.transpose(1, 2))
        results.append(out)
    for row in range(3):
        alone = torch.empty_like(query[:1])
        room = torch.empty(2 * eight_head_bytes(700, 128), dtype=torch.uint8, device="cuda")
        kernels = chunk8.Chunk8(state.rows[row], torch.bfloat16)
        kernels.attend(query[row : row + 1], 0, 700, 0.1, room, alone)
        for out in results:
            assert torch.equal(out[row].transpose(0, 1), alone[0])


@pytest.mark.parametrize("starts", [None, (0, 0, 0), (17, 17), (0, 17, 390)])
def test_a_model_s_chunk_goes_this_way(
    monkeypatch: pytest.MonkeyPatch, starts: tuple[int, ...] | None
) -> None:
    batch = len(starts or (0,))
    state = filled_state("k4v4-g64", 600, batch=batch, starts=starts, dim=128, device="cuda")
    query = noise(batch, 8, 250, 128, seed=9, device="cuda")
    expected = reference.attend(query.float(), state, scaling=0.1)
    assert chunk8.supports(state, torch.bfloat16)
    assert relative_error(staged.attend(query, state, scaling=0.1), expected) < 1e-2  # too few
    monkeypatch.setattr(chunk8, "faster", lambda *_: True)
    found = staged.attend(query, state, scaling=0.1)
    assert found.transpose(1, 2).is_contiguous()
    assert 5e-3 < relative_error(found, expected) < 0.05
