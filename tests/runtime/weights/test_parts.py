"""parts.cu: how products of five to sixteen rows are cut, on a GPU their results."""

from functools import partial

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.planner.latency.parts_cut import PartsCut, cut_of
from kvpareto.runtime import kernels
from kvpareto.runtime.fused_kernels import add_rms_norm, rms_norm, swiglu
from kvpareto.runtime.weights.cuda import cuda_norm, cuda_parts
from kvpareto.runtime.weights.layout import Packed4
from kvpareto.runtime.weights.whole_rows import whole_rows
from kvpareto.runtime.weights.workspace import Workspace
from tests.runtime.weights.few_rows import activations, relative_error, weight_of, workspace_of
from tests.support.kernel_states import filled_state, noise

ROOM = 231_424  # bytes of shared memory of an H200's block
CUTS = [PartsCut(16, *cut) for cut in ((4, 2, 16, 2, 3), (2, 4, 8, 3, 2), (1, 1, 16, 2, 1))]
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("rows", [5, 8, 9, 16])
@pytest.mark.parametrize(
    ("inputs", "out", "gated", "coarse", "busy"),
    [(4096, 28672, 1, 4, 0.84), (4096, 6144, 0, 1, 0.72), (4096, 4096, 0, 1, 0.96),
     (14336, 4096, 0, 1, 0.96), (11008, 544, 0, 1, 0), (384, 64, 1, 1, 0), (128, 32, 0, 1, 0)],
)  # fmt: skip
def test_a_cut_covers_the_matrix_and_fills_the_gpu(
    inputs: int, out: int, gated: int, coarse: int, busy: float, rows: int
) -> None:
    cut = cut_of(inputs, out, rows, gated, coarse, 132, ROOM)
    assert cut is not None
    assert cut.rows >= rows
    assert cut.groups * cut.splits <= 132
    assert cut.splits * cut.slices <= inputs // 128  # every slice has a unit
    strips = out // 32 // (2 if gated else 1)
    assert cut.groups * cut.strips(strips, gated, coarse) >= out // 32
    whole = -(-inputs // 128 // cut.splits) * cut.rows * 264
    sums = cut.slices * cut.strips(strips, gated, coarse) * cut.rows * 160
    assert cut.shared_bytes(inputs, strips, gated, coarse) == whole + sums <= ROOM
    tiles = cut.tiles(inputs, strips, gated, coarse) * cut.warps * 132
    assert inputs // 128 * (out // 32) / tiles >= busy


def test_inputs_that_no_block_holds_are_shared_or_left_to_others() -> None:
    """x of 16 rows and 128 inputs takes 4,224 bytes."""
    alone, shared = (cut_of(n, 8192, 16, 0, 1, 132, ROOM) for n in (4096, 28672))
    assert alone is not None
    assert shared is not None
    assert (alone.splits, shared.splits) == (1, 8)
    assert cut_of(8 * 57344, 8192, 16, 0, 1, 132, ROOM) is None


@pytest.mark.parametrize(
    ("inputs", "out", "gated", "rows", "splits"),
    [(3584, 37888, 1, 16, 2), (3584, 37888, 1, 8, 2), (3072, 16384, 1, 16, 2),
     (4096, 24576, 1, 8, 1), (14336, 4096, 0, 16, 4), (4096, 6144, 0, 16, 1)],
)  # fmt: skip
def test_blocks_share_inputs_where_their_sums_cost_less_than_it_saves(
    inputs: int, out: int, gated: int, rows: int, splits: int
) -> None:
    """The fastest of 114 timed cuts; eight blocks that share write 19 MB of sums of 37,888
    columns."""
    cut = cut_of(inputs, out, rows, gated, 4 if gated else 1, 132, ROOM)
    assert cut is not None
    assert cut.splits == splits


def check_kept(y: torch.Tensor, workspace: Workspace) -> None:
    """What the workspace holds of y are its whole numbers; rows past the last are nobody's."""
    rows, width = y.shape
    padded = 8 if rows <= 8 else 16
    room = workspace._whole
    assert room is not None
    codes = 2 * width * padded
    pieces, measures = (width // 128, 2, 2 * padded, 64), (width // 128, padded, 8)
    found, wanted = room[2], whole_rows(y, padded)
    one, other = (x[:codes].view(pieces)[:, :, : 2 * rows] for x in (found, wanted))
    assert torch.equal(one, other)
    one, other = (x[codes:].view(measures)[:, :rows] for x in (found, wanted))
    assert torch.equal(one, other)


class TestProducts:
    pytestmark = gpu

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("cut", [None, *CUTS], ids=str)
    def test_every_cut_of_odd_shapes(self, cut: PartsCut | None, dtype: torch.dtype) -> None:
        for inputs, out in ((4096, 6144), (11008, 544), (2048, 1056), (1024, 96), (14336, 4096)):
            if cut is not None and inputs > 2048:
                continue
            weight, workspace = weight_of(4, inputs, out), workspace_of(inputs, out)
            bias = torch.randn(out, device="cuda", dtype=dtype) if out == 1056 else None
            assert isinstance(weight, Packed4)
            for rows in (5, 8, 9, 13, 16):
                x = activations(rows, inputs, dtype)
                x[0, :128] = 0
                x[-1, 128:256] *= 1e-4
                assert cuda_parts.takes(weight, x, workspace)
                y = cuda_parts.product(x, weight, bias, workspace, cut)
                want = x.double() @ weight.dequantized(torch.float32).double()
                want = want if bias is None else want + bias.double()
                assert relative_error(y, want) < 3e-3
                assert torch.equal(y, cuda_parts.product(x, weight, bias, workspace, cut))

    @pytest.mark.parametrize("tanh", [False, True], ids=["silu", "gelu-tanh"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_gated_rows_are_kept_in_whole_numbers(self, dtype: torch.dtype, tanh: bool) -> None:
        """The next product takes them as they lie, with the result that x's own would have."""
        for inputs, width, rows in ((2048, 1024, 16), (4096, 14336, 9), (512, 640, 5)):
            weight, down = weight_of(4, inputs, 2 * width), weight_of(4, width, 544)
            assert isinstance(weight, Packed4)
            assert isinstance(down, Packed4)
            workspace, x = workspace_of(inputs, 2 * width), activations(rows, inputs, dtype)
            bias = torch.randn(2 * width, device="cuda", dtype=dtype)
            both = x.double() @ weight.dequantized(torch.float32).double() + bias.double()
            want = swiglu(*both.to(dtype).chunk(2, -1), tanh=tanh)
            y = cuda_parts.product(x, weight, bias, workspace, gated=2 if tanh else 1)
            assert relative_error(y, want.double()) < 1e-2
            check_kept(y, workspace)
            mixed = cuda_parts.product(y, down, None, workspace)
            assert torch.equal(mixed, cuda_parts.product(y.clone(), down, None, workspace))

    def test_halves_that_units_do_not_divide_are_gated_too(self) -> None:
        weight, workspace, x = (
            weight_of(4, 1024, 1088),
            workspace_of(1024, 1088),
            activations(7, 1024),
        )
        assert isinstance(weight, Packed4)
        both = x.double() @ weight.dequantized(torch.float32).double()
        y = cuda_parts.product(x, weight, None, workspace, gated=1)
        assert relative_error(y, swiglu(*both.bfloat16().chunk(2, -1)).double()) < 1e-2

    def test_what_is_not_a_number_stays_so(self) -> None:
        weight, workspace = weight_of(4, 2048, 1024), workspace_of(2048, 1024)
        assert isinstance(weight, Packed4)
        for value in (float("nan"), float("inf")):
            x = activations(12, 2048)
            x[10, 77] = value
            y = cuda_parts.product(x, weight, None, workspace)
            assert y[:10].isfinite().all()
            assert y[11].isfinite().all()
            assert not y[10].isfinite().any()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("offset", [False, True], ids=["plain", "gemma"])
    def test_a_norm_gives_whole_numbers_too(self, offset: bool, dtype: torch.dtype) -> None:
        for rows, width in ((5, 128), (9, 4096), (16, 5120), (7, 14336)):
            workspace = workspace_of(64, 14336)
            x, residual = activations(rows, width, dtype), activations(rows + 1, width, dtype)[1:]
            weight = torch.randn(width, device="cuda", dtype=dtype)
            assert cuda_norm.takes(x, weight)
            made = cuda_norm.norm(x, residual, weight, 1e-5, workspace, offset=offset)
            assert made is not None
            normed, total = made
            wanted, added = add_rms_norm(x, residual, weight, 1e-5, offset=offset)
            assert torch.equal(total, added)
            assert relative_error(normed, wanted.double()) < 1e-3
            check_kept(normed, workspace)
            alone = cuda_norm.norm(x, None, weight, 1e-5, workspace, offset=offset)
            assert alone is not None
            assert (
                relative_error(alone[0], rms_norm(x, weight, 1e-5, offset=offset).double()) < 1e-3
            )
            check_kept(alone[0], workspace)

    @pytest.mark.parametrize(("rows", "tokens"), [(16, 400), (5, 1200), (9, 33)])
    @pytest.mark.parametrize("heads", [2, 8])
    def test_attention_gives_whole_numbers_too(self, heads: int, rows: int, tokens: int) -> None:
        """Where a block has a row to itself, and where several share one."""
        state = filled_state("k4v4-g64", tokens, batch=rows, heads=heads, dim=128, device="cuda")
        query = noise(rows, 4 * heads, 1, 128, seed=9, device="cuda")
        workspace, width = workspace_of(4 * heads * 128, 256), 4 * heads * 128
        weight = weight_of(4, width, 256)
        keep = partial(cuda_parts.keep_for, weight, workspace)
        mixed = kernels.attend(query, state, scaling=128**-0.5, keep=keep)
        assert torch.equal(mixed, kernels.attend(query, state, scaling=128**-0.5))
        check_kept(mixed.view(rows, width), workspace)
