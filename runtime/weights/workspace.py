"""The one scratch buffer that a model's quantized layers share.

Chunks dequantize a layer's weight into it before a library's matmul; products of few rows keep
the partial sums of their splits in it. Its size is one 16-bit copy of the largest quantized
matrix, which is what the planner counts, so no layer allocates while it runs and CUDA graphs
replay against fixed addresses.
"""

import torch

from ...planner.errors import BadInput

COUNTERS = 4096  # arrival counters of split products: blocks of columns x rows in one launch


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

    def weight(self, inputs: int, outputs: int, dtype: torch.dtype) -> torch.Tensor:
        """Scratch as a 16-bit matrix [inputs, outputs]. Raises BadInput where it does not fit."""
        if 2 * inputs * outputs > self.scratch.numel():
            raise BadInput(
                f"the dequantization workspace holds {self.scratch.numel()} bytes, a weight of "
                f"{inputs} x {outputs} needs {2 * inputs * outputs}",
                "make the workspace from the model's largest quantized matrix",
            )
        return self.scratch[: 2 * inputs * outputs].view(dtype).view(inputs, outputs)

    def eight_bits(self, inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scratch as e4m3 codes [outputs, inputs] and float32 scales [1, outputs]. Raises BadInput
        where they do not fit."""
        self.weight(inputs, outputs, torch.bfloat16)  # which is larger
        size = inputs * outputs
        codes = self.scratch[:size].view(torch.float8_e4m3fn).view(outputs, inputs)
        return codes, self.scratch[size : size + 4 * outputs].view(torch.float32)[None]

    def partial(self) -> torch.Tensor:
        """Scratch as fp32."""
        return self.scratch[: self.scratch.numel() // 4 * 4].view(torch.float32)


def require_16_bits(dtype: torch.dtype) -> None:
    """Raise BadInput unless `dtype` is bfloat16 or float16, which the kernels take."""
    if dtype not in (torch.bfloat16, torch.float16):
        raise BadInput(
            f"quantized weights run on 16-bit activations on a GPU, not {dtype}",
            "load the model in bfloat16 or float16",
        )
