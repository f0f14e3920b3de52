"""row.cu, ring.cu, sweep.cu on a GPU: their products, gated ones too."""

import pytest
import torch

pytest.importorskip("triton")

from kvpareto.runtime.fused_kernels import swiglu
from kvpareto.runtime.weights import launch
from kvpareto.runtime.weights.cuda import (
    cuda_parts,
    cuda_ring,
    cuda_row,
    cuda_stream,
    cuda_sweep,
    cuda_wide,
)
from kvpareto.runtime.weights.cuda.cuda_ring import RingCut
from kvpareto.runtime.weights.cuda.cuda_stream import StreamCut
from kvpareto.runtime.weights.cuda.cuda_sweep import SweepCut
from kvpareto.runtime.weights.cuda.cuda_wide import WideCut
from kvpareto.runtime.weights.layout import Packed4
from kvpareto.runtime.weights.workspace import Workspace
from tests.runtime.weights.few_rows import activations, relative_error, weight_of, workspace_of

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUTS = [
    RingCut(*cut)
    for cut in ((1, 1, 4, 1, 4, 4), (2, 1, 2, 2, 3, 3), (2, 1, 1, 4, 3, 2), (4, 1, 4, 1, 4, 2),
                (4, 2, 4, 1, 3, 1), (2, 4, 2, 2, 2, 1))
]  # fmt: skip

SWEEPS = [
    SweepCut(*cut)
    for cut in ((1, 16, 1, 1, 3, 2), (1, 8, 1, 2, 3, 2), (2, 16, 1, 1, 2, 2), (2, 8, 2, 1, 4, 1))
]  # fmt: skip

WIDE = [WideCut(*cut) for cut in ((64, 1, 6, 1), (16, 8, 5, 2), (16, 2, 5, 2), (32, 4, 8, 1))]


class TestProducts:
    pytestmark = gpu

    @pytest.mark.parametrize("bits", [4, 8])
    @pytest.mark.parametrize("cut", [None, *CUTS], ids=str)
    def test_every_cut_of_odd_shapes(self, cut: RingCut | None, bits: int) -> None:
        most = 64 if cut is None else cut.rows
        for inputs, out in ((4096, 6144), (11008, 520), (2048, 1032), (384, 40)):
            weight, workspace = weight_of(bits, inputs, out), workspace_of(inputs, out)
            bias = torch.randn(out, device="cuda").bfloat16() if out == 1032 else None
            for rows in {1, most // 2 + 1, most - 3, most} - {0, -2}:
                x = activations(max(rows, 1), inputs)
                y = cuda_ring.product(x, weight, bias, workspace, cut)
                want = x.double() @ weight.dequantized(torch.float32).double()
                want = want if bias is None else want + bias.double()
                assert relative_error(y, want) < 5e-3
                assert torch.equal(y, cuda_ring.product(x, weight, bias, workspace, cut))
                assert not workspace.counters.any()

    @pytest.mark.parametrize(
        ("bits", "inputs", "out", "group", "dtype"),
        [(4, 4096, 512, 32, torch.float16), (4, 2048, 512, 64, torch.bfloat16),
         (8, 1040, 520, 128, torch.bfloat16), (8, 4112, 516, 128, torch.float16)],
    )  # fmt: skip
    def test_groups_types_and_ragged_inputs(
        self, bits: int, inputs: int, out: int, group: int, dtype: torch.dtype
    ) -> None:
        weight, workspace = weight_of(bits, inputs, out, group), workspace_of(inputs, out)
        for rows in (1, 5, 13, 30, 61):
            x = activations(rows, inputs, dtype)
            y = cuda_ring.product(x, weight, None, workspace)
            want = x.double() @ weight.dequantized(torch.float32).double()
            assert relative_error(y, want) < 5e-3

    @pytest.mark.parametrize("cut", [None, *SWEEPS], ids=str)
    def test_every_sweep_of_odd_shapes(self, cut: SweepCut | None) -> None:
        most = 16 if cut is None else 8 * cut.tiles
        for inputs, out in ((4096, 6144), (11008, 520), (2048, 1032), (384, 40), (14336, 4096)):
            weight, workspace = weight_of(4, inputs, out), workspace_of(inputs, out)
            bias = torch.randn(out, device="cuda").bfloat16() if out == 1032 else None
            assert isinstance(weight, Packed4)
            for rows in (3, most // 2 + 1, most - 3, most):
                x = activations(rows, inputs, torch.float16 if out == 520 else torch.bfloat16)
                y = cuda_sweep.product(x, weight, bias, workspace, cut)
                want = x.double() @ weight.dequantized(torch.float32).double()
                want = want if bias is None else want + bias.double()
                assert relative_error(y, want) < 5e-3
                assert torch.equal(y, cuda_sweep.product(x, weight, bias, workspace, cut))
                assert not workspace.counters.any()

    @pytest.mark.parametrize("bits", [4, 8])
    @pytest.mark.parametrize("lanes", [None, 4, 8, 16])
    def test_one_and_two_rows(self, lanes: int | None, bits: int) -> None:
        for inputs, out, rows in ((4096, 6144, 1), (11008, 2048, 2), (2048, 1032, 1), (384, 40, 2),
                                  (1152, 520, 1), (14336, 4096, 2)):  # fmt: skip
            weight, x = weight_of(bits, inputs, out), activations(rows, inputs)
            bias = torch.randn(out, device="cuda").bfloat16() if out == 1032 else None
            cut = lanes and cuda_row.RowCut(1, lanes, min(132, -(-out // (4 * lanes))))
            y = cuda_row.product(x, weight, bias, cut=cut or None)
            want = x.double() @ weight.dequantized(torch.float32).double()
            want = want if bias is None else want + bias.double()
            assert relative_error(y, want) < 5e-3
            assert torch.equal(y, cuda_row.product(x, weight, bias, cut=cut or None))

    @pytest.mark.parametrize("cut", [None, *WIDE], ids=str)
    def test_every_cluster_of_odd_shapes(self, cut: WideCut | None) -> None:
        if torch.cuda.get_device_capability()[0] != 9:
            pytest.skip("warpgroups are Hopper's")
        for inputs, out in ((4096, 6144), (11008, 544), (2048, 1056), (1024, 64), (14336, 4096)):
            weight, workspace = weight_of(4, inputs, out), workspace_of(inputs, out)
            bias = torch.randn(out, device="cuda").bfloat16() if out == 1056 else None
            assert isinstance(weight, Packed4)
            for rows in {1, 9, 16, 17, 31, 33, 64} if cut is None else {cut.rows - 5, cut.rows}:
                x = activations(rows, inputs, torch.float16 if out == 544 else torch.bfloat16)
                assert cuda_wide.takes(weight, x)
                y = cuda_wide.product(x, weight, bias, workspace, cut)
                want = x.double() @ weight.dequantized(torch.float32).double()
                want = want if bias is None else want + bias.double()
                assert relative_error(y, want) < 5e-3
                assert torch.equal(y, cuda_wide.product(x, weight, bias, workspace, cut))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("rows", range(1, 9))
    def test_whole_numbers_of_odd_shapes(self, rows: int, dtype: torch.dtype) -> None:
        for inputs, out in ((4096, 6144), (11008, 544), (2048, 1056), (384, 64), (7168, 8448)):
            weight, workspace = weight_of(4, inputs, out), workspace_of(inputs, out)
            bias = torch.randn(out, device="cuda", dtype=dtype) if out == 1056 else None
            assert isinstance(weight, Packed4)
            x = activations(rows, inputs, dtype)
            x[0, :128] = 0  # units of which nothing is to be measured, and some far apart
            x[-1, 128:256] *= 1e-4
            assert cuda_stream.takes(weight, x)
            want = x.double() @ weight.dequantized(torch.float32).double()
            want = want if bias is None else want + bias.double()
            few = StreamCut(next(n for n in cuda_stream.ROWS if n >= rows), 2, -(-out // 64))
            for cut in (None, few):
                y = cuda_stream.product(x, weight, bias, workspace, cut)
                assert relative_error(y, want) < 3e-3
                assert torch.equal(y, cuda_stream.product(x, weight, bias, workspace, cut))

    def test_what_is_not_a_number_stays_so(self) -> None:
        weight, workspace = weight_of(4, 2048, 1024), workspace_of(2048, 1024)
        assert isinstance(weight, Packed4)
        for value in (float("nan"), float("inf")):
            x = activations(2, 2048)
            x[1, 77] = value
            y = cuda_stream.product(x, weight, None, workspace)
            assert y[0].isfinite().all()
            assert not y[1].isfinite().any()

    def test_a_small_workspace_costs_splits_only(self) -> None:
        weight, workspace = weight_of(4, 4096, 520), Workspace(1024, "cuda")
        x = activations(16, 4096)
        want = x.double() @ weight.dequantized(torch.float32).double()
        assert relative_error(cuda_ring.product(x, weight, None, workspace), want) < 5e-3

    @pytest.mark.parametrize("bits", [4, 8])
    @pytest.mark.parametrize("tanh", [False, True], ids=["silu", "gelu-tanh"])
    def test_halves_gate_each_other(self, tanh: bool, bits: int) -> None:
        for inputs, out, rows in ((4096, 2048, 1), (2048, 1040, 2), (2048, 2064, 1),
                                  (2048, 6208, 7), (1024, 1008, 33), (11008, 4096, 40),
                                  (2048, 6208, 20), (4096, 8448, 1)):  # fmt: skip
            if bits == 8 and 2 < rows <= 32:
                continue  # apart
            weight, workspace = weight_of(bits, inputs, out), workspace_of(inputs, out)
            x, bias = activations(rows, inputs), torch.randn(out, device="cuda").bfloat16()
            both = x.double() @ weight.dequantized(torch.float32).double() + bias.double()
            want = swiglu(*both.bfloat16().chunk(2, -1), tanh=tanh).double()
            y = launch.gated(x, weight, bias, workspace, tanh=tanh)
            assert y is not None
            assert y.shape == (rows, out // 2)
            assert relative_error(y, want) < 1e-2

    @pytest.mark.parametrize("rows", [1, 2, 7, 16, 30, 40])
    @pytest.mark.parametrize("way", ["stream", "parts", "wide", "before"])
    def test_launches_that_overlap_wait_for_each_other(self, rows: int, way: str) -> None:
        """A chain of products, each of the one before: the same with and without overlap."""
        weight = weight_of(4, 2048, 2048)
        assert isinstance(weight, Packed4)
        workspace, x = workspace_of(2048, 2048), activations(rows, 2048)
        if way == "stream" and not cuda_stream.takes(weight, x):
            pytest.skip("more than eight rows")
        if way == "parts" and not cuda_parts.takes(weight, x, workspace):
            pytest.skip("more than sixteen rows")
        if way == "wide" and not cuda_wide.takes(weight, x):
            pytest.skip("warpgroups are Hopper's")

        def chain(early: bool) -> torch.Tensor:
            y = x
            for _ in range(40):
                if way == "stream":
                    y = cuda_stream.product(y, weight, None, workspace, early=early)
                elif way == "parts":
                    y = cuda_parts.product(y, weight, None, workspace, early=early)
                elif way == "wide":
                    y = cuda_wide.product(y, weight, None, workspace, early=early)
                elif rows <= 2:
                    y = cuda_row.product(y, weight, None, early=early)
                elif rows <= 16:
                    y = cuda_sweep.product(y, weight, None, workspace, early=early)
                else:
                    y = cuda_ring.product(y, weight, None, workspace, early=early)
            return y

        assert torch.equal(chain(True), chain(False))
