"""The oracle itself: it must count what a torch program allocates, or nothing it holds is held."""

import pytest
import torch

from tests.support.oracle.cuda_attention import attention, cuda_attention
from tests.support.oracle.tracker import counting

KIB = 1024


def _take(kib: int) -> torch.Tensor:
    return torch.empty(kib * KIB, dtype=torch.uint8, device="meta")


def test_live_and_peak_follow_references() -> None:
    with counting() as counter:
        a = _take(4)
        b = _take(8)
        assert (counter.live, counter.peak) == (12 * KIB, 12 * KIB)
        del a
        c = _take(2)
        assert (counter.live, counter.peak) == (10 * KIB, 12 * KIB)
        counter.reset_peak()
        assert counter.peak == 10 * KIB
        del b, c
        assert counter.live == 0


def test_views_share_storage_and_keep_it_alive() -> None:
    with counting() as counter:
        whole = _take(64)
        window = whole[-KIB:]
        assert counter.live == 64 * KIB
        del whole
        assert counter.live == 64 * KIB
        del window
        assert counter.live == 0


def test_in_place_operations_take_nothing() -> None:
    with counting() as counter:
        x = torch.empty(256, device="meta")
        x.add_(1).mul_(2)
        assert counter.peak == KIB


def test_sizes_are_rounded_up_to_512_bytes() -> None:
    with counting() as counter:
        kept = [torch.empty(n, dtype=torch.uint8, device="meta") for n in (1, 512, 513)]
        assert counter.live == 512 + 512 + 1024
        assert len(kept) == 3


def test_temporaries_inside_one_expression_are_seen() -> None:
    x = torch.empty(256, device="meta")  # 1 KiB, from before the counting: not counted
    with counting() as counter:
        y = (x * 2) + (x * 3)
        assert counter.peak == 3 * KIB  # both products while their sum is made
        assert counter.live == KIB
        assert y.numel() == 256


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "masked", "extra"),
    [
        (8, 8, 128, False, 0),
        (8, 2, 128, False, 0),
        (8, 8, 128, True, 64 * 96 * 2),  # the mask in 16 bits
        (8, 8, 512, False, 64 * 8 * 512 * 4),  # float32 sums of wide heads
    ],
    ids=["plain", "grouped", "masked", "wide"],
)
def test_attention_takes_what_cuda_kernels_take(
    heads: int, kv_heads: int, dim: int, masked: bool, extra: int
) -> None:
    make = {"dtype": torch.bfloat16, "device": "meta"}
    query = torch.empty(1, heads, 64, dim, **make)
    key = torch.empty(1, kv_heads, 96, dim, **make)
    mask = torch.empty(1, 1, 64, 96, dtype=torch.bool, device="meta") if masked else None
    with counting() as counter:
        out = attention(query, key, key, mask, enable_gqa=kv_heads != heads)
        scalars = 2 * 512 if masked else 0
        assert counter.peak - scalars <= 64 * heads * dim * 2 + extra <= counter.peak
    assert out.shape == (1, heads, 64, dim)
    assert out.transpose(1, 2).is_contiguous()


def test_attention_is_replaced_only_inside_the_block() -> None:
    original = torch.nn.functional.scaled_dot_product_attention
    with cuda_attention():
        assert torch.nn.functional.scaled_dot_product_attention is attention
    assert torch.nn.functional.scaled_dot_product_attention is original
