"""row.cu, ring.cu, sweep.cu: their host sides, arguments and how work is cut, without a GPU."""

import ctypes
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.runtime.weights.cuda import (
    cuda_ring,
    cuda_row,
    cuda_sweep,
    few_rows,
)
from kvpareto.runtime.weights.layout import Packed4

SOURCES = Path(cuda_ring.__file__).parent
C_TYPES = {"int": ctypes.c_int, "i64": ctypes.c_longlong}


@pytest.mark.parametrize(
    ("source", "arguments"), [("row.cu", cuda_row._Args), ("few_rows.cuh", few_rows.Args)]
)
def test_arguments_lie_as_the_kernel_declares_them(
    source: str, arguments: type[ctypes.Structure]
) -> None:
    body = re.search(r"struct Args \{(.*?)\n\};", (SOURCES / source).read_text(), re.DOTALL)
    assert body is not None
    found: list[tuple[str, type]] = []
    for statement in re.sub(r"//.*", "", body[1]).split(";"):
        words = statement.strip().removeprefix("const ")
        if words:
            kind, names = words.split(maxsplit=1)
            pointer = kind.endswith("*")
            for name in names.split(","):
                found.append((name.strip(), ctypes.c_void_p if pointer else C_TYPES[kind]))
    assert found == list(arguments._fields_)


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 3, 8, 9, 16, 17, 32, 33, 64])
def test_a_block_fits_any_gpus_shared_memory(rows: int, bits: int, group: int) -> None:
    cut = cuda_ring.cut_of(rows)
    assert cut.rows >= rows
    assert cut.shared_bytes(bits, group) <= 101_376 - 1024  # the smallest, of 8.9
    # the ring's layout as ring.cu has it: words, scales and zeros, x
    words = cut.strips * cut.slices * 2048
    pairs = cut.strips * cut.slices * (128 // group) * 80 if bits == 4 else 0
    x = cut.slices * cut.rows * (320 if bits == 4 else 192)
    sums = (cut.slices - 1) * cut.strips * cut.rows * 32 * 4
    assert cut.shared_bytes(bits, group) == cut.stages * (words + pairs + x) + sums


@pytest.mark.parametrize("rows", [3, 8, 9, 16])
@pytest.mark.parametrize(
    ("inputs", "out", "busy"),
    [
        (4096, 28672, 0.96),
        (4096, 6144, 0.72),
        (4096, 4096, 0.96),
        (14336, 4096, 0.96),
        (384, 48, 0),
    ],
)
def test_a_sweep_covers_its_inputs_and_fills_the_gpu(
    inputs: int, out: int, busy: float, rows: int
) -> None:
    cut = cuda_sweep.cut_of(rows)
    assert 8 * cut.tiles >= rows
    assert cut.ahead % cut.units == 0
    assert cut.threads <= 512
    # x of the slices as pairs, a padded row of floats for each of a warp's rows of results
    x = cut.slices * cut.units * 128 * 8 * cut.tiles * 2
    assert cut.shared_bytes == x + cut.buffers * cut.threads // 32 * 8 * cut.tiles * 144
    assert cut.shared_bytes <= 232_448 - 1024
    groups, splits = cut.groups(out), cut.splits(inputs)
    assert groups * cut.strips * 32 >= out
    assert splits * cut.slices * cut.units * 128 >= inputs
    rounds = -(-groups * splits // 132)
    assert groups * splits / (rounds * 132) >= busy
    assert rounds <= cuda_sweep.MOST_ITEMS


@pytest.mark.parametrize("gated", [0, 1])
@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize(
    ("inputs", "out", "busy"),
    # strips of 32 or, for 6144 outputs, 16 columns: each of 132 multiprocessors gets as many
    [(4096, 28672, 0.96), (4096, 6144, 0.96), (4096, 4096, 0.96), (14336, 4096, 0.96),
     (2048, 2560, 0.6), (384, 48, 0.0), (4096, 128_256, 0.96)],
)  # fmt: skip
def test_strips_are_dealt_evenly(inputs: int, out: int, busy: float, rows: int, gated: int) -> None:
    words = torch.empty(inputs // 8, out, dtype=torch.int32, device="meta")
    zeros = torch.empty(inputs // 128, out // 8, dtype=torch.int32, device="meta")
    scales = torch.empty(inputs // 128, out, dtype=torch.float16, device="meta")
    weight = Packed4(words, zeros, scales)
    cut = cuda_row.cut_of(weight, min(rows, 2), rows, gated, 132)
    columns = out // 2 if gated else out
    strips = -(-columns // (cut.lanes * (2 if gated else 4)))
    assert 1 <= cut.blocks <= strips
    rounds = -(-strips // cut.blocks)
    if rows <= 2:  # gated ones are dealt less evenly, for longer lines
        assert strips / (rounds * 132) >= busy * (0.5 if gated else 1)
    assert rounds * cut.rows * cuda_row.WARPS * 16 * cut.lanes <= cuda_row.RESULTS
    if rows == 1:
        assert cuda_row._shared_bytes(weight, cut, gated) <= 232_448


@pytest.mark.parametrize(("gated", "lanes"), [(0, 8), (1, 16)])
def test_gated_strips_are_as_wide_as_was_fastest(gated: int, lanes: int) -> None:
    words = torch.empty(512, 28672, dtype=torch.int32, device="meta")
    scales = torch.empty(32, 28672, dtype=torch.float16, device="meta")
    weight = Packed4(words, torch.empty(32, 3584, dtype=torch.int32, device="meta"), scales)
    assert cuda_row.cut_of(weight, 1, 1, gated, 132).lanes == lanes
