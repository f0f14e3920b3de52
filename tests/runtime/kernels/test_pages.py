"""Pages of vLLM's 4- and 8-bit caches: its own bytes, and the kernels over them."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kvpareto.runtime.kernels.paged import reference
from kvpareto.runtime.kernels.paged.page_format import (
    PageFormat,
    pack,
    rotate,
    rotate_back,
    unpack,
)
from tests.runtime.kernels.paged_batch import paged_batch

SAVED = Path(__file__).parents[2] / "data" / "vllm_pages" / "pages_0.26.json"
NAMES = ["int4_per_token_head", "int8_per_token_head"]
SHAPES = [("int4_per_token_head", 64), ("int8_per_token_head", 48)]


@pytest.fixture
def interpreted() -> None:
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("kernels run for real: test_pages_gpu.py")


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_vllms_own_to_the_bit(name: str) -> None:
    """tests/data holds what vLLM's functions wrote: constant rows, a row of zeros, a left-out
    token among them."""
    saved = json.loads(SAVED.read_text())["formats"][name]
    key, value = (torch.tensor(saved[side]).div(32).bfloat16() for side in ("key", "value"))
    form = PageFormat.of(name, saved["dim"])
    assert form is not None
    pages = torch.zeros(2, key.shape[1], 16, form.row_bytes, dtype=torch.uint8)
    reference.write(pages, key, value, torch.tensor(saved["slots"]), form)
    written = {str(slot) for slot in saved["slots"] if slot >= 0}
    assert saved["rows"].keys() == written
    for slot, heads in saved["rows"].items():
        rows = pages[int(slot) // 16, :, int(slot) % 16]
        assert [bytes(row.tolist()).hex() for row in rows] == heads
    assert int(pages.any(-1).sum()) == len(written) * key.shape[1]


def test_bytes_of_a_row_by_hand() -> None:
    # 128 codes of 4 bits and a float32 scale a side; 128 codes of 8 bits
    assert PageFormat(4, 128).row_bytes == 2 * (64 + 4)
    assert PageFormat(8, 128).row_bytes == 2 * (128 + 4)


@pytest.mark.parametrize(
    ("name", "dim", "taken"),
    [("int4_per_token_head", 128, True), ("int4_per_token_head", 96, False),
     ("int8_per_token_head", 96, True), ("int8_per_token_head", 72, False),
     ("fp8_per_token_head", 128, False), ("auto", 128, False)],
)  # fmt: skip
def test_formats_that_are_known(name: str, dim: int, taken: bool) -> None:
    assert (PageFormat.of(name, dim) is not None) is taken


def test_rotation_keeps_products_and_turns_back() -> None:
    x, y = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(rotate(x) @ rotate(y).T / 64, x @ y.T, atol=1e-4)
    assert torch.allclose(rotate_back(rotate(x)), x, atol=1e-5)


@pytest.mark.parametrize(("name", "dim"), SHAPES)
def test_codes_are_within_half_a_step(name: str, dim: int) -> None:
    form = PageFormat.of(name, dim)
    assert form is not None
    x = torch.randn(7, 3, dim, generator=torch.Generator().manual_seed(2)) + 0.5
    held = rotate(x) if form.rotated else x
    rows = pack(x, form)
    word = rows[..., -4:].contiguous().view(torch.int32)
    scale = (word & -16 if form.rotated else word).view(torch.float32)
    assert bool(((unpack(rows, form) - held).abs() <= scale * 0.5001 + 1e-6).all())


@pytest.mark.parametrize(("name", "dim"), SHAPES)
def test_the_writer_writes_the_references_bytes(interpreted: None, name: str, dim: int) -> None:
    from kvpareto.runtime.kernels.paged.write_pages import write_pages

    batch = paged_batch(name, dim, 2, [19, 1, 16])
    written = torch.full_like(batch.pages, 0xFF)
    slots = batch.slots.clone()
    slots[5] = -1  # left out
    expected = torch.full_like(batch.pages, 0xFF)
    reference.write(expected, batch.key, batch.value, slots, batch.form)
    # rows that lie further apart than their heads, as a fused projection leaves them
    apart = torch.zeros(len(slots) + 2, 2, 3 * dim, dtype=batch.key.dtype)
    key, value = apart[:, :, :dim], apart[:, :, dim : 2 * dim]
    key[:-2], value[:-2] = batch.key, batch.value
    write_pages(written, key, value, slots, batch.form)
    assert torch.equal(written, expected)


@pytest.mark.parametrize(("name", "dim"), SHAPES)
def test_staged_rows_are_the_pages(interpreted: None, name: str, dim: int) -> None:
    from kvpareto.runtime.kernels.paged.stage_pages import PADDING, stage_pages

    batch = paged_batch(name, dim, 2, [33, 0, 7], page=32)
    total = sum(batch.lengths)
    shape = (total + PADDING + 1, 2, dim)
    key, value = (torch.full(shape, float("nan")) for _ in "kv")
    stage_pages(batch.pages, batch.table, batch.device_lengths, batch.starts, key, value, 33,
                batch.form)  # fmt: skip
    for i, length in enumerate(batch.lengths):
        first = int(batch.starts[i])
        found = key[first : first + length], value[first : first + length]
        expected = reference.read(batch.pages, batch.table[i], length, batch.form)
        for mine, theirs in zip(found, expected, strict=True):
            assert torch.equal(mine.transpose(0, 1), theirs)
    assert not key[total:-1].any()
    assert not value[total:-1].any()
    assert bool(key[-1].isnan().all())


def test_rows_are_rotated_as_by_the_reference(interpreted: None) -> None:
    from kvpareto.runtime.kernels.paged.stage_pages import rotate_rows

    x = paged_batch("int4_per_token_head", 64, 3, [37]).key
    turned, back = torch.zeros_like(x), torch.zeros_like(x)
    rotate_rows(x, turned)
    rotate_rows(turned, back, back=True)
    assert torch.equal(turned, rotate(x))
    assert torch.equal(back, rotate_back(turned))


def plain(query: Tensor, key: Tensor, value: Tensor, last: int, window: int) -> Tensor:
    """One query [heads, D] at position `last`, over keys and values [tokens, heads, D]."""
    first = max(0, last + 1 - window) if window else 0
    scores = torch.einsum("hd,thd->ht", query, key[first : last + 1]) * 0.125
    return torch.einsum("ht,thd->hd", scores.softmax(-1), value[first : last + 1])


@pytest.mark.parametrize("window", [0, 9])
@pytest.mark.parametrize(("name", "dim"), SHAPES)
def test_the_reference_attends_as_on_unpacked_rows(name: str, dim: int, window: int) -> None:
    batch = paged_batch(name, dim, 2, [5, 40], dtype=torch.float32)
    query = torch.randn(3, 4, dim, generator=torch.Generator().manual_seed(3))
    found = reference.attend(query, batch.pages, batch.table[1], 40, batch.form, scaling=0.125,
                             window=window)  # fmt: skip
    key, value = reference.read(batch.pages, batch.table[1], 40, batch.form)
    turn = rotate_back if batch.form.rotated else (lambda x: x)
    key, value = (turn(x.transpose(0, 1)).repeat_interleave(2, 1) for x in (key, value))
    for i in range(3):
        expected = plain(query[i], key, value, 37 + i, window)
        assert torch.allclose(found[i], expected, atol=2e-5), i
