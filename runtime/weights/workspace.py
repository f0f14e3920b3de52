"""The one scratch buffer that a model's quantized layers share.

Chunks dequantize a layer's weight into it before a library's matmul; products of few rows keep
the partial sums of their splits in it. Its size is one 16-bit copy of the largest quantized
matrix, which is what the planner counts, so no layer allocates while it runs and CUDA graphs
replay against fixed addresses.
"""

from collections.abc import Callable

import torch

from ...planner.errors import BadInput
from ...planner.latency.parts_cut import whole_bytes

COUNTERS = 4096  # arrival counters of split products: of blocks of columns, of each warp of theirs


Keep = Callable[[torch.Tensor], tuple[torch.Tensor, int] | None]
"""Room for rows [n, width] in whole numbers, and for how many rows it is; None where no product
would look for them."""


class Workspace(torch.nn.Module):
    """`elements` 16-bit values of scratch. One stream at a time may use it.

    A module so that `model.to(device)` moves it; its buffers are not saved.
    """

    scratch: torch.Tensor
    counters: torch.Tensor

    def __init__(self, elements: int, device: torch.device | str) -> None:
        super().__init__()
        scratch = torch.empty(2 * elements, dtype=torch.uint8, device=device)
        counters = torch.zeros(COUNTERS, dtype=torch.int32, device=device)
        self.register_buffer("scratch", scratch, persistent=False)
        self.register_buffer("counters", counters, persistent=False)
        self.rows_in_8_bits = False
        """Whether products of more than a few rows round these to e4m3 (eight_bits/): set for each
        pass by who runs it."""
        self._whole: tuple[torch.Tensor, int, torch.Tensor] | None = None

    def sums(self) -> torch.Tensor:
        """Scratch of a product's own: what was kept there is gone."""
        self._whole = None
        return self.scratch

    def keep_whole(self, y: torch.Tensor, rows: int, behind: int = 0) -> torch.Tensor | None:
        """Room for y [n, width] in whole numbers (whole_rows.py), padded to `rows` rows, `behind`
        so many bytes that are still read; None where there is none. The caller's kernel writes
        them, `whole_of` finds them."""
        self._whole = None
        begin = -(-behind // 16) * 16
        room = self.scratch[begin : begin + whole_bytes(y.shape[1], rows)]
        if room.numel() < whole_bytes(y.shape[1], rows):
            return None
        self._whole = y, rows, room
        return room

    def end_of(self, room: torch.Tensor | None) -> int:
        """Where a part of the scratch ends, in bytes from its beginning; 0 where there is none."""
        if room is None:
            return 0
        return room.data_ptr() - self.scratch.data_ptr() + room.numel()

    def holds_whole(self, x: torch.Tensor, rows: int) -> bool:
        """Whether whole numbers of x are kept, padded to `rows` rows."""
        if self._whole is None:
            return False
        y, padded, _ = self._whole
        same = y.data_ptr() == x.data_ptr() and y.shape == x.shape and y.dtype == x.dtype
        return same and padded == rows

    def whole_of(self, x: torch.Tensor, rows: int) -> torch.Tensor | None:
        """The whole numbers kept of x, once; None where it is another tensor."""
        kept, holds = self._whole, self.holds_whole(x, rows)
        self._whole = None
        return kept[2] if kept is not None and holds else None

    def weight(self, inputs: int, outputs: int, dtype: torch.dtype) -> torch.Tensor:
        """Scratch as a 16-bit matrix [inputs, outputs]. Raises BadInput where it does not fit."""
        if 2 * inputs * outputs > self.scratch.numel():
            raise BadInput(
                f"the dequantization workspace holds {self.scratch.numel()} bytes, a weight of "
                f"{inputs} x {outputs} needs {2 * inputs * outputs}",
                "make the workspace from the model's largest quantized matrix",
            )
        return self.sums()[: 2 * inputs * outputs].view(dtype).view(inputs, outputs)

    def eight_bits(self, inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scratch as e4m3 codes [outputs, inputs] and float32 scales [1, outputs]. Raises BadInput
        where they do not fit."""
        self.weight(inputs, outputs, torch.bfloat16)  # which is larger
        size = inputs * outputs
        codes = self.scratch[:size].view(torch.float8_e4m3fn).view(outputs, inputs)
        return codes, self.scratch[size : size + 4 * outputs].view(torch.float32)[None]

    def partial(self) -> torch.Tensor:
        """Scratch as fp32."""
        return self.sums()[: self.scratch.numel() // 4 * 4].view(torch.float32)


def require_16_bits(dtype: torch.dtype) -> None:
    """Raise BadInput unless `dtype` is bfloat16 or float16, which the kernels take."""
    if dtype not in (torch.bfloat16, torch.float16):
        raise BadInput(
            f"quantized weights run on 16-bit activations on a GPU, not {dtype}",
            "load the model in bfloat16 or float16",
        )
