"""NVFP4 and MXFP4: codes and scales worked out by hand, and what a first append freezes."""

import pytest
import torch

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.formats.kv_format import KVFormat, SideFormat
from kvpareto.runtime import attention, reference
from kvpareto.runtime.cache.block_scales import freeze_tensor
from kvpareto.runtime.cache.layer_state import Clock
from kvpareto.runtime.cache.quantize import dequantize, quantize
from tests.support.kernel_states import empty_state


def side(name: str) -> SideFormat:
    return KVFormat.of(Configuration.parse(f"w16a16-k{name}v16"), 0).key


def blocks(*rows: list[float], width: int) -> torch.Tensor:
    """Blocks of channels that begin with the given values, zeros behind them: [1, 1, 1, D]."""
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows]).view(1, 1, 1, -1)


def test_every_code_and_tie_of_e2m1() -> None:
    # largest 6: scale 2^0. Each value lies on a level, then halfway between two.
    levels = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    ties = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -0.25, -0.75, -5.0]
    x = blocks([*levels, -6.0, -0.5, *ties], width=32)
    codes, scales = quantize(x, side("mxfp4"))
    assert scales.flatten().tolist() == [127]
    assert codes.flatten()[:20].tolist() == [
        *(0, 1, 2, 3, 4, 5, 6, 7, 15, 9),
        *(0, 2, 2, 4, 4, 6, 6, 8, 10, 14),
    ]
    back = dequantize(codes, scales, side("mxfp4")).flatten()[:20].tolist()
    assert back[:10] == [*levels, -6.0, -0.5]
    assert back[10:] == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 0.0, -1.0, -4.0]


@pytest.mark.parametrize(
    ("largest", "exponent"),
    [(6.0, 0), (6.98, 0), (7.0, 1), (8.0, 1), (3.48, -1), (3.5, 0), (0.0, -126), (447.0, 6)],
)
def test_a_power_of_two_leaves_the_largest_below_7(largest: float, exponent: int) -> None:
    codes, scales = quantize(blocks([largest], width=32), side("mxfp4"))
    assert scales.item() == 127 + exponent
    assert codes.flatten()[1:].max() == 0


def test_nvfp4_has_scales_of_three_bits_of_mantissa() -> None:
    # blocks of 16; largest 39 / 6 = 6.5, an e4m3 (0x4D); 40.2 / 6 = 6.7 is rounded to it
    x = blocks([39.0, 6.5, -13.0], [40.2, 3.25, 1.0], [6.0 * 448 * 8], width=16)
    codes, scales = quantize(x, side("nvfp4"), tensor=torch.ones(1, 1))
    assert scales.flatten().tolist() == [0x4D, 0x4D, 0x7E]  # the last is past e4m3's end
    assert codes.view(3, 16)[:, :3].tolist() == [[7, 2, 12], [7, 1, 0], [7, 0, 0]]
    back = dequantize(codes, scales, side("nvfp4"), torch.ones(1, 1)).view(3, 16)
    assert back[:, 0].tolist() == [39.0, 39.0, 2688.0]
    assert back[0, :3].tolist() == [39.0, 6.5, -13.0]


def test_a_tensor_scale_moves_nothing_but_the_range() -> None:
    x = torch.randn(2, 3, 5, 64, generator=torch.Generator().manual_seed(1))
    one = quantize(x * 2.0**-12, side("nvfp4"), tensor=torch.full((2, 3), 2.0**-12))
    two = quantize(x, side("nvfp4"), tensor=torch.ones(2, 3))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    lost = quantize(x * 2.0**-12, side("nvfp4"), tensor=torch.ones(2, 3))[1]
    assert lost.max() <= 1  # under e4m3's smallest without it


@pytest.mark.parametrize(("name", "error"), [("nvfp4", 0.0091), ("mxfp4", 0.0125)])
def test_squared_error_of_normal_values(name: str, error: float) -> None:
    x = torch.randn(1, 1, 4096, 256, generator=torch.Generator().manual_seed(2))
    codes, scales = quantize(x, side(name), tensor=torch.full((1, 1), 2.0**-6))
    back = dequantize(codes, scales, side(name), torch.full((1, 1), 2.0**-6))
    assert float((back - x).square().mean()) == pytest.approx(error, rel=0.02)


def test_a_last_block_is_narrower() -> None:
    codes, scales = quantize(torch.full((1, 1, 1, 80), 3.0), side("mxfp4"))
    assert codes.shape[-1] == 80
    assert scales.shape == (1, 1, 1, 3)
    assert bool((dequantize(codes, scales, side("mxfp4")) == 3.0).all())


def test_the_first_real_tokens_freeze_the_tensor_scale() -> None:
    clock, tensor = Clock(2, torch.device("cpu")), torch.ones(2, 1)
    clock.begin([0, 4])
    x = torch.zeros(2, 1, 3, 16)
    x[0, 0, 1, 5] = -6.0 * 17
    x[1] = 1e6  # padding
    clock.advance(3)
    freeze_tensor(tensor, x, clock)
    assert tensor.flatten().tolist() == [1.0, 1.0]  # 17 lies between 16 and 32
    x = torch.full((2, 1, 3, 16), 6.0 * 40)
    clock.advance(3)
    freeze_tensor(tensor, x, clock)
    assert tensor.flatten().tolist() == [1.0, 2.0]  # the first is frozen; the second begins at 4


def test_appends_freeze_it_once_and_a_chunking_changes_no_byte() -> None:
    key = torch.randn(1, 2, 200, 64, generator=torch.Generator().manual_seed(4)).bfloat16()
    key[:, :, 70:] *= 1000  # what comes late does not move it
    states = [empty_state("knvfp4vmxfp4", tokens=200) for _ in range(2)]
    for state, cuts in zip(states, [(200,), (64, 1, 35, 100)], strict=True):
        at = 0
        for n in cuts:
            state.clock.advance(n)
            attention.append(state, key[:, :, at : at + n], key[:, :, at : at + n])
            at += n
    for one, two in zip(states[0].key.tensors(), states[1].key.tensors(), strict=True):
        assert torch.equal(one, two)
    held = reference.read(states[0].key, 0, 70)
    gap = (held - key[:, :, :70].float()).square().mean() / key[:, :, :70].float().square().mean()
    assert float(gap) < 0.012
