"""Quantized checkpoints as the 16-bit weights that they stand for, tensor by tensor while loading.

    8 bits     NAME         e4m3, e5m2 or int8 [.., out, in]
               NAME_scale, or NAME_scale_inv: of the tensor, [out, 1], or of blocks of R x C
               [ceil(out / R), ceil(in / C)]; in fp32, 16 bits, or exponents alone (e8m0, bytes)
               NAME_zero_point: int8 like the scales, where there is one
               value = (code - zero point) * scale
    MXFP4      NAME_blocks  uint8 [experts, out, in / 32, 16], two e2m1 codes a byte, low first
               NAME_scales  uint8 [experts, out, in / 32], exponents with a bias of 127
               value = e2m1 * 2^(scale - 127), as [experts, in, out]

DeepSeek-V3's fp8 and gpt-oss's MXFP4 are so, and what compressed-tensors, fbgemm and modelopt make
of 8 bits. transformers' own way for fp8 takes no block that a matrix does not fill (DeepSeek-V3's
`kv_a_proj_with_mqa` of 576 rows), and for compressed-tensors another package. Which tensors are
quantized is read off the files. Scales of activations are not used: products run in 16 bits.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...planner.errors import BadInput
from ...planner.formats.code_tables import E2M1
from ..checkpoint import AGAIN, check_files

EXPONENT_BIAS = 127
BLOCK = (128, 128)
_CODES = ("F8_E4M3", "F8_E5M2", "I8")
_SCALES = ("_scale_inv", "_scale")
_OF_ACTIVATIONS = re.compile(r"(input|output|activation|[qkv])_(scale|zero_point)(_inv)?$")


class StoredTensor:
    """A tensor of a safetensors file. Indexing reads it, as it does safetensors' own slices."""

    def __init__(self, files: Mapping[str, Any], name: str) -> None:
        self.name = name
        self._files = files

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self._read(self.name)[index]

    def _read(self, name: str) -> torch.Tensor:
        value: torch.Tensor = self._files[name].get_tensor(name)
        return value


class ScaledTensor(StoredTensor):
    """Codes of 8 bits with their scales, as `dtype`."""

    def __init__(
        self,
        files: Mapping[str, Any],
        name: str,
        scales: str,
        block: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:
        super().__init__(files, name)
        self._scales, self._block, self._dtype = scales, block, dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        codes, scales = self._read(self.name), self._read(self._scales)
        zeros = f"{self.name}_zero_point"
        zero = self._read(zeros) if zeros in self._files else None
        whole = scaled(codes, scales, self._block, zero, name=self.name)
        return whole.to(self._dtype)[index]


class MXFP4Tensor(StoredTensor):
    """A stack of experts' matrices in MXFP4, as `dtype`."""

    def __init__(self, files: Mapping[str, Any], name: str, dtype: torch.dtype) -> None:
        super().__init__(files, name)
        self._dtype = dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        blocks, scales = (self._read(f"{self.name}_{part}") for part in ("blocks", "scales"))
        return mxfp4(blocks, scales, self._dtype, name=self.name)[index]


def dequantized_tensors(
    folder: Path, section: Mapping[str, Any], dtype: torch.dtype
) -> dict[str, StoredTensor]:
    """The tensors of a folder by the names of its 16-bit self; each is read when it is indexed.

    `section` is config.json's `quantization_config`. Raises BadInput for codes without scales and
    for codes in another form.
    """
    from safetensors import safe_open

    files: dict[str, Any] = {}
    for path in check_files(folder):
        opened = safe_open(str(path), framework="pt")
        files.update(dict.fromkeys(opened.keys(), opened))
    block = _block(section)
    tensors: dict[str, StoredTensor] = {}
    beside = set()
    for name, opened in files.items():
        kind = opened.get_slice(name).get_dtype()
        if name.endswith("_blocks") and f"{name.removesuffix('_blocks')}_scales" in files:
            matrix = name.removesuffix("_blocks")
            tensors[matrix] = MXFP4Tensor(files, matrix, dtype)
            beside |= {name, f"{matrix}_scales"}
        elif kind in _CODES and not _OF_ACTIVATIONS.search(name) and not _is_zero(name, files):
            scales = next((name + end for end in _SCALES if name + end in files), None)
            if scales is None:
                raise BadInput(f"{folder.name} stores {name} as {kind} without its scales", AGAIN)
            tensors[name] = ScaledTensor(files, name, scales, block, dtype)
            beside |= {name, scales, f"{name}_zero_point"}
    for name in files:
        if name in beside or _OF_ACTIVATIONS.search(name):
            continue
        if re.search(r"_(packed|shape|g_idx|scale_2|global_scale)$", name):
            raise BadInput(
                f"{folder.name} stores {name}, a quantized form that this runtime does not read",
                "use the 16-bit checkpoint or an AWQ one",
            )
        tensors[name] = StoredTensor(files, name)
    return tensors


def scaled(
    codes: torch.Tensor,
    scales: torch.Tensor,
    block: tuple[int, int] = BLOCK,
    zero: torch.Tensor | None = None,
    *,
    name: str = "a weight",
) -> torch.Tensor:
    """fp32 values of codes [.., out, in] under scales of blocks, channels or the whole.

    Raises BadInput where the scales are not those of a matrix of this shape.
    """
    if codes.dim() < 2 or scales.numel() == 1:
        factor = _factors(scales, name)
        shift = 0.0 if zero is None else zero.float()
        return (codes.float() - shift) * factor
    factor = _spread(_factors(scales, name), codes.shape, block, name)
    if zero is None:
        return codes.float() * factor
    return (codes.float() - _spread(zero.float(), codes.shape, block, name)) * factor


def mxfp4(
    blocks: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype, *, name: str = "experts"
) -> torch.Tensor:
    """blocks [E, out, G, 16], scales [E, out, G] -> values [E, 32 G, out], expert by expert."""
    if scales.dtype == torch.float8_e8m0fnu:
        scales = scales.view(torch.uint8)
    shaped = blocks.dim() == 4 and blocks.shape[:-1] == scales.shape and blocks.shape[-1] == 16
    if not shaped or blocks.dtype != torch.uint8 or scales.dtype != torch.uint8:
        raise BadInput(
            f"{name} has blocks {_described(blocks)} and scales {_described(scales)}, which are "
            "no MXFP4: bytes [experts, rows, groups, 16] and [experts, rows, groups]",
            AGAIN,
        )
    experts, out, groups, _ = blocks.shape
    levels = torch.tensor(E2M1 + tuple(-level for level in E2M1), device=blocks.device)
    values = torch.empty(experts, 32 * groups, out, dtype=dtype, device=blocks.device)
    for expert in range(experts):
        codes = blocks[expert].int()
        pairs = torch.stack((levels[codes & 15], levels[codes >> 4]), dim=-1)
        shift = scales[expert].int()[:, :, None, None] - EXPONENT_BIAS
        values[expert] = torch.ldexp(pairs, shift).view(out, 32 * groups).T.to(dtype)
    return values


def _spread(
    scales: torch.Tensor, shape: torch.Size, block: tuple[int, int], name: str
) -> torch.Tensor:
    """Scales of a matrix's blocks as one for each weight, or as it broadcasts to that."""
    out, inputs = shape[-2:]
    if scales.dim() == 1 and scales.shape[0] == out:
        return scales[:, None]
    if scales.dim() == len(shape) - 1 and scales.shape == shape[:-1]:
        return scales[..., None]
    if scales.dim() == len(shape) and scales.shape[:-2] == shape[:-2]:
        rows, columns = scales.shape[-2:]
        if rows in (1, out) and columns == 1:
            return scales
        sides = (
            _side(out, rows, block[0]),
            _side(inputs, columns, block[1]),
        )
        if None not in sides:
            high, wide = sides
            every = scales.repeat_interleave(high or 1, dim=-2)[..., :out, :]
            return every.repeat_interleave(wide or 1, dim=-1)[..., :inputs]
    raise BadInput(
        f"{name} of {_sizes(shape)} has scales of {_sizes(scales.shape)}, which are neither its "
        f"channels' nor those of blocks of {block[0]} x {block[1]}",
        "config.json and the weights do not belong together",
    )


def _side(size: int, scales: int, block: int) -> int | None:
    """Rows (or columns) that share a scale; None where there are not as many scales."""
    if scales == size:
        return 1
    if scales == 1:
        return size
    return block if -(-size // block) == scales else None


def _factors(scales: torch.Tensor, name: str) -> torch.Tensor:
    """Scales as fp32: bytes are exponents. Raises BadInput for other integers."""
    if scales.dtype == torch.uint8:
        return torch.exp2(scales.float() - EXPONENT_BIAS)
    if not scales.is_floating_point():
        raise BadInput(f"the scales of {name} are {_described(scales)}, which is no scale", AGAIN)
    return scales.float()


def _described(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} [{', '.join(map(str, tensor.shape))}]"


def _block(section: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of a block that shares a scale, as the config says; else the usual."""
    sizes = section.get("weight_block_size")
    groups = section.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        sizes = sizes or (weights or {}).get("block_structure")
    if not isinstance(sizes, list | tuple) or len(sizes) != 2:
        return BLOCK
    return int(sizes[0]), int(sizes[1])


def _is_zero(name: str, files: Mapping[str, Any]) -> bool:
    return name.endswith("_zero_point") and name.removesuffix("_zero_point") in files


def _sizes(shape: torch.Size) -> str:
    return " x ".join(map(str, shape)) or "one number"
