"""The AWQ "gemm" checkpoint format, which AutoAWQ and gptqmodel write: pack, unpack, round.

A linear layer of `in` inputs and `out` outputs in groups of g inputs is stored as

    qweight  int32 [in, out / 8]      codes, eight output columns a word
    qzeros   int32 [in / g, out / 8]  zero points, packed the same way
    scales   fp16  [in / g, out]

and W[k, n] = (q[k, n] - z[k // g, n]) * s[k // g, n], the transpose of `Linear.weight`.
Nibble i (low first) of word j is output column 8 j + (0, 2, 4, 6, 1, 3, 5, 7)[i].
This module is the truth that the faster layout (layout.py) and its kernels are held to.
"""

from dataclasses import dataclass

import torch

from ...planner.errors import BadInput

NIBBLE_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)
"""Output column, within a word, of each nibble."""
PACK = 8  # codes in an int32 word
LEVELS = 15  # highest 4-bit code


@dataclass(frozen=True)
class AWQTensors:
    """One layer as the checkpoint stores it. Shapes above; `group_size` inputs share a scale."""

    qweight: torch.Tensor
    qzeros: torch.Tensor
    scales: torch.Tensor

    @property
    def in_features(self) -> int:
        return self.qweight.shape[0]

    @property
    def out_features(self) -> int:
        return self.scales.shape[1]

    @property
    def group_size(self) -> int:
        return self.in_features // self.scales.shape[0]

    @property
    def nbytes(self) -> int:
        return self.qweight.nbytes + self.qzeros.nbytes + self.scales.nbytes

    def check(self, name: str) -> None:
        """Raise BadInput, naming the layer, unless shapes and dtypes are the format's."""
        groups, out = self.scales.shape
        packed = (self.qzeros.shape == (groups, out // PACK)) and out % PACK == 0
        whole = groups > 0 and self.in_features % groups == 0
        words = self.qweight.dtype == self.qzeros.dtype == torch.int32
        if not (packed and whole and words and self.qweight.shape[1] == out // PACK):
            raise BadInput(
                f"{name}: qweight {list(self.qweight.shape)} {self.qweight.dtype}, "
                f"qzeros {list(self.qzeros.shape)}, scales {list(self.scales.shape)} "
                "are not an AWQ gemm layer",
                "only 4-bit AWQ checkpoints in the gemm format are read",
            )


def pack(codes: torch.Tensor) -> torch.Tensor:
    """uint8 codes [rows, columns] in 0..15 -> int32 words [rows, columns / 8]."""
    rows, columns = codes.shape
    nibbles = codes.reshape(rows, columns // PACK, PACK).to(torch.int32)
    words = torch.zeros(rows, columns // PACK, dtype=torch.int32, device=codes.device)
    for i, column in enumerate(NIBBLE_COLUMNS):
        words |= nibbles[:, :, column] << (4 * i)
    return words


def unpack(words: torch.Tensor) -> torch.Tensor:
    """int32 words [rows, columns / 8] -> uint8 codes [rows, columns]; the inverse of `pack`."""
    codes = torch.empty(*words.shape, PACK, dtype=torch.uint8, device=words.device)
    for i, column in enumerate(NIBBLE_COLUMNS):
        codes[..., column] = ((words >> (4 * i)) & LEVELS).to(torch.uint8)
    return codes.reshape(words.shape[0], -1)


def dequantize(tensors: AWQTensors) -> torch.Tensor:
    """The layer's weight as fp32 [out, in], as `Linear.weight` lies."""
    group = tensors.group_size
    codes = unpack(tensors.qweight).float()
    zeros = unpack(tensors.qzeros).float().repeat_interleave(group, dim=0)
    scales = tensors.scales.float().repeat_interleave(group, dim=0)
    return ((codes - zeros) * scales).T.contiguous()


def with_zeros(weight: torch.Tensor, group_size: int) -> torch.Tensor:
    """`weight` [out, in] with zeros behind its inputs, up to a multiple of `group_size`."""
    return torch.nn.functional.pad(weight, (0, -weight.shape[1] % group_size))


def round_to_nearest(weight: torch.Tensor, group_size: int) -> AWQTensors:
    """Quantize `weight` [out, in] asymmetrically, without any search: the plain baseline.

    Each group's range is widened to hold 0, so that the zero point is a code. Raises
    BadInput where the format cannot hold the shape.
    """
    out, inputs = weight.shape
    if inputs % group_size or out % PACK:
        raise BadInput(
            f"a weight of {out} x {inputs} has no 4-bit format in groups of {group_size}",
            f"inputs must be a multiple of {group_size} and outputs of {PACK}",
        )
    groups = weight.float().reshape(out, inputs // group_size, group_size)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    # A scale is rounded to fp16 before the codes are chosen, so that they fit what is stored;
    # its floor is fp16's smallest normal number, which an all-zero group takes.
    tiny = torch.finfo(torch.float16).tiny
    scales = ((high - low) / LEVELS).clamp(min=tiny).half().float()
    zeros = (-low / scales).round().clamp(0, LEVELS)
    codes = (groups / scales[..., None] + zeros[..., None]).round().clamp(0, LEVELS)
    return AWQTensors(
        pack(codes.reshape(out, inputs).T.to(torch.uint8)),
        pack(zeros.T.to(torch.uint8)),
        scales.T.half().contiguous(),
    )
