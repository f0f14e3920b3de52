"""Attention in 8 bits: the reference against exact attention, and the tiles' images."""

import math

import pytest
import torch
from torch import Tensor

from kvpareto.planner.memory.activation.workspace import (
    eight_head_bytes,
    eight_heads,
    merging_bytes,
    staging_bytes,
)
from kvpareto.runtime.kernels.eight_bits import chunk8
from kvpareto.runtime.kernels.eight_bits import reference as plain
from kvpareto.runtime.kernels.eight_bits.chunk8 import ONES, TILE, StagedTiles
from tests.support.kernel_states import empty_state
from tests.support.runtime_builders import relative_error


def rows(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def exact(query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    n, tokens = len(query), len(keys)
    logits = query.double() @ keys.double().mT * scaling
    later = torch.arange(tokens)[None, :] > torch.arange(n)[:, None] + tokens - n
    return logits.masked_fill(later, -math.inf).softmax(dim=1) @ values.double()


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize(("n", "tokens"), [(1, 1), (130, 130), (33, 1000), (200, 129 + 200)])
def test_reference_is_near_exact_attention(n: int, tokens: int, dim: int) -> None:
    query, keys, values = rows(n, dim, 1) * 2, rows(tokens, dim, 2), rows(tokens, dim, 3)
    found = plain.attend(query, keys, values, dim**-0.5)
    assert relative_error(found, exact(query, keys, values, dim**-0.5)) < 0.04


def test_one_key_of_many_costs_its_value_three_bits_only() -> None:
    keys, values = rows(500, 64, 2), rows(500, 64, 3)
    query = keys[137:138] * 40
    found = plain.attend(query, keys, values, 0.125)
    assert relative_error(found, values[137:138]) < 2**-4


def test_a_channel_all_keys_share_costs_no_precision() -> None:
    query, keys, values = rows(5, 64, 1), rows(300, 64, 2), rows(300, 64, 3)
    keys[:, 7] += 200.0
    query[:, 7] = 1.0
    found = plain.attend(query, keys, values, 0.125)
    assert relative_error(found, exact(query, keys, values, 0.125)) < 0.05


def test_a_far_heavier_tile_leaves_the_others_their_weights() -> None:
    keys, values = torch.zeros(2**14, 64), torch.ones(2**14, 64)
    query = torch.zeros(1, 64)
    query[0, 0], keys[5, 0] = 8.0, 18.0  # e^18 against 16,384 that each weigh nothing beside it
    keys[:, 1], values[5] = 1e-3, -1.0
    found = plain.attend(query, keys, values, 0.125 * 0.5)
    assert relative_error(found, exact(query, keys, values, 0.125 * 0.5)) < 0.02


@pytest.mark.parametrize("pitch", [64, 128])
def test_swizzle_spreads_eight_rows_over_all_banks(pitch: int) -> None:
    tile = torch.arange(16 * pitch).view(16, pitch)
    image = plain.swizzled(tile).flatten()
    assert torch.equal(image.sort().values, tile.flatten())
    for column in range(0, pitch, 16):  # one 16-byte piece of eight rows, as a product reads it
        places = [int((image == tile[row, column]).nonzero()) // 16 % 8 for row in range(8)]
        assert sorted(places) == list(range(8))


def test_value_image_holds_each_token_once_in_the_threads_order() -> None:
    tokens = torch.arange(TILE, dtype=torch.int16).to(torch.uint8)[None, :, None].expand(1, -1, 64)
    image = plain.value_image(tokens.contiguous()).view(2, 72, 64)
    assert image[0, 0, :8].tolist() == [0, 1, 8, 9, 2, 3, 10, 11]
    assert image[1, 0, 16:24].tolist() == [80, 81, 88, 89, 82, 83, 90, 91]
    assert sorted(image[:, 0].flatten().tolist()) == list(range(TILE))
    assert set(image[:, 64].flatten().tolist()) == {0x38}  # e4m3's 1
    assert not image[:, 65:].any()


def test_key_image_turns_pieces_of_a_row_by_its_number() -> None:
    codes = torch.arange(128, dtype=torch.int8).expand(1, TILE, 128).contiguous()
    image = plain.key_image(codes).view(TILE, 128)
    assert image[0, :2].tolist() == [0, 1]
    assert image[3, :2].tolist() == [48, 49]
    assert image[8, :2].tolist() == [0, 1]


def test_tiles_are_scaled_by_their_largest() -> None:
    codes, scales = plain.quantized_tiles(torch.tensor([[1.0, -2.0]]).repeat(130, 32), torch.int8)
    assert codes.shape == (2, TILE, 64)
    assert codes[0, 0, :2].tolist() == [64, -127]
    assert codes[1, 2:].abs().max() == 0
    assert scales.tolist() == pytest.approx([2 / 127] * 2)


def test_weights_are_e4m3_within_a_code_and_right_on_average() -> None:
    powers = torch.linspace(-5.9, 8.0, 100_000)
    found = plain.rounded_weights(powers)
    codes = found.to(torch.float8_e4m3fn).view(torch.uint8).int()
    exact = powers.exp2().to(torch.float8_e4m3fn).view(torch.uint8).int()
    assert (codes - exact).abs().max() == 1
    apart = found / powers.exp2() - 1
    assert abs(float(apart.mean())) < 2e-3
    assert float(apart.square().mean().sqrt()) < 0.035  # of e4m3 to the nearest: 0.026
    assert plain.rounded_weights(torch.tensor([8.0, -9.0, -torch.inf])).tolist() == [
        256.0,
        0.0,
        0.0,
    ]


def test_tiles_lie_within_the_bytes_that_are_counted_for_a_head() -> None:
    room = torch.zeros(3 * eight_head_bytes(300, 128), dtype=torch.uint8)
    tiles = StagedTiles.within(room, 3, 300, 128)
    assert tiles.keys.shape == (3, 3, TILE * 128)
    assert tiles.values.shape == (3, 3, TILE * (128 + ONES))
    assert tiles.key_scales.shape == tiles.value_scales.shape == (3, 3, 4)
    assert tiles.mean.shape == (3, 128)
    tiles.mean.fill_(1.0)
    assert room[-4:].view(torch.float32).item() == 1.0
    starts = [t.data_ptr() - room.data_ptr() for t in (tiles.values, tiles.key_scales)]
    assert all(start % 16 == 0 for start in starts)  # as bulk copies need it


@pytest.mark.parametrize(
    ("new", "tokens", "taken"),
    # Llama-3.1-8B: 32 heads on 8. A chunk of 8,192 queries has 43 blocks a head, 512 has 3.
    [(8192, 131_000, 3), (8192, 8192, 8), (512, 8192, 8), (256, 8192, 0), (1024, 131_000, 0)],
)
def test_heads_of_a_launch(new: int, tokens: int, taken: int) -> None:
    room = max(staging_bytes(8, 128, 128, tokens, new), merging_bytes(32, 128, new))
    assert int(eight_heads(room, new, tokens, 32, 8)) == taken


def test_what_8_bits_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def takes(text: str, dim: int = 128, kind: torch.dtype = torch.bfloat16) -> bool:
        return chunk8.supports(empty_state(text, dim=dim), kind)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert takes("k4v4-g64")
    assert takes("k2v4-pt")
    assert not takes("k8v4-g64")  # 8-bit operands would cost more than the cache does
    assert not takes("k4v8-g64")
    assert not takes("k16v16")
    assert not takes("k4v4-g64+res128")
    assert not takes("k4v4-g64+sink4")
    assert not takes("k4v4-kc-g64")
    assert not takes("k4v4-g64", dim=64)
    assert not takes("k4v4-g64", kind=torch.float16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (10, 0))
    assert not takes("k4v4-g64")
