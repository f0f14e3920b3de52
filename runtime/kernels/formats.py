"""A layer's format as constants of the CUDA kernels, named as decode.cu and stage.cu name them."""

import torch
from torch import Tensor

from ...planner.formats.code_tables import planes
from ...planner.formats.configuration import Granularity
from ..cache.layer_state import SideState
from ..cache.quantize import level_table

INTEGERS, FLOATS, TABLE, NVFP4, MXFP4 = range(5)
"""What codes stand for: themselves, e4m3, a table's levels; e2m1 in blocks with byte scales."""
_KINDS = {"": INTEGERS, "fp8": FLOATS, "nvfp4": NVFP4, "mxfp4": MXFP4}


def pair_width(side: SideState) -> int:
    """Channels that share a pair of a token; pairs per channel or tensor do not divide a row."""
    divided = side.form.granularity in (Granularity.PER_TOKEN, Granularity.PER_BLOCK)
    return side.form.group_width(side.dim) if side.form.quantized and divided else side.dim


def per_channel(side: SideState) -> bool:
    return side.form.quantized and side.form.granularity is Granularity.PER_CHANNEL


def format_constants(key: SideState, value: SideState, dtype: torch.dtype) -> dict[str, int]:
    """D, KB, KX, KG, KT, K_TENSOR, K_TABLE, the same of V, KC and HALF: see decode.cu, stage.cu."""
    constants = {"D": key.dim, "KC": per_channel(key), "HALF": dtype == torch.float16}
    for name, side in (("K", key), ("V", value)):
        tensor = side.form.quantized and side.form.granularity is Granularity.PER_TENSOR
        main, *more = planes(side.form.bits)
        constants[f"{name}B"], constants[f"{name}X"] = main, sum(more)
        constants[f"{name}_TABLE"] = table_kind(side)
        constants[f"{name}G"] = pair_width(side)
        constants[f"{name}T"] = side.form.block if side.form.quantized else 1
        constants[f"{name}_TENSOR"] = tensor
    return {name: int(constant) for name, constant in constants.items()}


def table_kind(side: SideState) -> int:
    return _KINDS.get(side.form.table, TABLE)


def levels_of(side: SideState) -> Tensor:
    """Levels and boundaries of a table's codes, or NVFP4's tensor scales; where there are none, any
    tensor in their place."""
    if side.tensor is not None:
        return side.tensor
    levels = level_table(side.form, side.dim, side.values.device)
    return side.values if levels is None else levels


def pairs_of(side: SideState) -> Tensor:
    """Pairs (scale, offset) as 32-bit words; blocks' scales as bytes."""
    assert side.scale is not None  # quantized sides have scales
    return side.scale if side.scale.dtype == torch.uint8 else side.scale.view(torch.int32)


def address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def ring_rows(buffer: Tensor | None) -> int:
    """Tokens a buffer of 16-bit rows holds; 1 where there is none, as a divisor."""
    return 1 if buffer is None else buffer.shape[2]
