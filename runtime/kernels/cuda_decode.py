"""Host side of decode.cu: which layers it takes, its constants, its workspace, its launch."""

import ctypes
import functools
import weakref
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...planner.formats.code_tables import planes
from ...planner.formats.configuration import Granularity
from ...planner.memory.activation.workspace import TAIL_PARTS, decode_splits
from ..cache.layer_state import Clock, LayerState, SideState
from ..weights.workspace import Keep
from . import nvrtc, rope_append
from .formats import address, format_constants, pair_width, per_channel, ring_rows

_MOST, _DIM = 16, 128  # warps of a multiprocessor that leave sums of heads so wide their registers
_UNIT = 128  # channels of a head that are a unit of whole numbers
_SOURCE = Path(__file__).with_name("decode.cu")


class _Newest(ctypes.Structure):
    """`Newest` of newest.cuh, field by field."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "cos", "sin")),
        *((f"{x}_{axis}", ctypes.c_longlong) for x in "qkv" for axis in ("batch", "head")),
        ("angle_batch", ctypes.c_longlong),
    ]


class _Args(ctypes.Structure):
    """`Args` of decode.cu, field by field."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k_values", "v_values", "k_scale", "v_scale")),
        *((f"{side}_{name}", ctypes.c_void_p) for name in ("residual", "sinks") for side in "kv"),
        *((name, ctypes.c_void_p) for name in ("clock", "starts", "logits", "out")),
        *((name, ctypes.c_void_p) for name in ("partial", "arrived")),
        *((name, ctypes.c_int) for name in ("heads", "query_heads", "head_blocks")),
        *((name, ctypes.c_int) for name in ("k_capacity", "v_capacity")),
        *((name, ctypes.c_int) for name in ("residual_k", "residual_v", "sinks", "buffered")),
        *((name, ctypes.c_int) for name in ("k_block", "v_block", "window", "splits")),
        *((name, ctypes.c_float) for name in ("scaling", "softcap")),
        ("whole", ctypes.c_void_p),
        ("newest", _Newest),
    ]


class NewToken(NamedTuple):
    """A step's tokens as the projections left them: queries, keys, values [B, 1, H, D], RoPE's cos
    and sin [B or 1, 1, D]."""

    query: Tensor
    key: Tensor
    value: Tensor
    cos: Tensor
    sin: Tensor


def writes(state: LayerState, new: NewToken) -> bool:
    """Whether `decode` turns, appends and attends to a step's tokens in its one launch."""
    query = new.query.transpose(1, 2)
    return (
        query.shape[2] == 1
        and not state.aligned
        and rope_append.supports(state, query.dtype)
        and supports(state, query)
        and all(_aligned(x) for x in new)
    )


def _aligned(x: Tensor) -> bool:
    """Whether heads lie where a lane's channels are one load."""
    return (
        x.stride(-1) == 1
        and x.data_ptr() % 16 == 0
        and all(x.stride(axis) % 8 == 0 for axis in range(x.dim() - 1) if x.shape[axis] > 1)
    )


def supports(state: LayerState, query: Tensor) -> bool:
    """Whether decode.cu takes this layer: see `_deals` for the shapes; heads of one width."""
    key, value = state.key, state.value
    same = {x.values.dtype for x in (key, value) if not x.form.quantized} <= {query.dtype}
    return (
        key.values.is_cuda
        and same
        and query.dtype in (torch.bfloat16, torch.float16)
        and nvrtc.available()
        and torch.cuda.get_device_capability(key.values.device) >= (8, 0)
        and key.dim == value.dim
        and key.dim % 16 == 0
        and 32 <= key.dim <= 256
        and _deals(key, 4)
        and _deals(value, 8)
        and _head_block(query.shape[1] // key.values.shape[1]) is not None
    )


def _deals(side: SideState, lanes: int) -> bool:
    """Whether a group's bytes divide evenly among lanes, into pieces a lane can take codes from."""
    if not side.form.quantized:
        return True
    if side.form.table or len(planes(side.form.bits)) > 1:
        return False
    width = pair_width(side)
    if side.dim % width or width % 16 or width * side.form.bits % (8 * lanes):
        return False
    piece = width * side.form.bits // 8 // lanes
    return piece % 2 == 0 if lanes == 4 else side.form.bits < 8 or piece % 2 == 0


def _head_block(group: int) -> int | None:
    """Query heads of one KV head that a block takes: all, or equal parts of 8 at most."""
    return next((n for n in range(min(8, group), 0, -1) if group % n == 0), None)


def decode(
    query: Tensor,
    state: LayerState,
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    keep: Keep | None = None,
    new: NewToken | None = None,
) -> Tensor:
    """Attention of one token, [B, Hq, 1, D] -> [B, Hq, 1, D]. `supports` must hold.

    With `new`, whose queries `query` is then, the launch itself turns queries and keys and appends
    keys and values, which the clock already counts; `writes` must hold.

    `sinks`, float [Hq], is one more logit in each row's softmax. `keep`, asked for heads of 128
    channels, gives room for the result in whole numbers, which are written too. Launch shape
    depends on the buffers only, never on the length, so a CUDA graph may capture the call.
    """
    key, value = state.key, state.value
    batch, query_heads, _, dim = query.shape
    heads = key.values.shape[1]
    group = query_heads // heads
    taken = _head_block(group)
    assert taken is not None  # `supports` holds
    blocks = group // taken
    tail = any(t is not None for t in (key.residual, key.sinks, value.residual, value.sinks))
    device, rows = query.device.index or 0, batch * heads * blocks
    many = rows > _processors(device)
    constants = _constants(
        key, value, query.dtype, taken, softcap is not None, tail, many, device, new is not None
    )
    splits = decode_splits(rows, _processors(device), key.values.shape[2])
    parts = splits + (TAIL_PARTS if tail else 0)
    partial, arrived = _workspace(state.clock, rows * parts * taken * (dim + 2), rows)
    query = query if new is not None else query.contiguous()
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    kept = None if keep is None or dim != _UNIT else keep(out.view(batch, -1))
    constants["WHOLE"] = 0 if kept is None else kept[1]
    kernel = nvrtc.compile_kernel(_SOURCE, "decode", constants, device, constants["SHARED"])
    extra = None if sinks is None else sinks.float().contiguous()
    args = _Args(
        *map(address, (query, key.values, value.values, key.scale, value.scale)),
        *map(address, (key.residual, value.residual, key.sinks, value.sinks)),
        *map(address, (state.clock.device, state.clock.starts, extra, out, partial, arrived)),
        *(heads, query_heads, blocks, key.values.shape[2], value.values.shape[2]),
        *(ring_rows(key.residual), ring_rows(value.residual)),
        max(key.sink_tokens, value.sink_tokens),
        max(s.form.buffered if s.form.quantized else 0 for s in (key, value)),
        *(key.form.block, value.form.block, state.window or 0, splits),
        *(scaling, softcap or 0.0),
        address(None if kept is None else kept[0]),
        _Newest() if new is None else _newest(new),
    )
    kernel.launch((splits, heads * blocks, batch), constants["WARPS"] * 32, args, early=True)
    return out


def _newest(new: NewToken) -> _Newest:
    batch = new.cos.stride(0) if new.cos.shape[0] > 1 else 0
    strides = (x.stride(axis) for x in new[:3] for axis in (0, 2))
    return _Newest(*map(address, new), *strides, batch)


def _constants(
    key: SideState,
    value: SideState,
    dtype: torch.dtype,
    group: int,
    softcap: bool,
    tail: bool,
    many: bool,
    device: int,
    write: bool,
) -> dict[str, int]:
    """`many`: the launch has more blocks than the device multiprocessors. `write`: the launch turns
    and appends."""
    channels = per_channel(key)
    constants = format_constants(key, value, dtype)
    constants |= {"GROUP": group, "TAIL": int(tail), "SOFTCAP": int(softcap)}
    constants["WRITES"] = int(write)
    block = key.form.block if channels else 32
    step = 16 * (_token_bytes(key) + _token_bytes(value)), 4 * key.dim if channels else 0
    room = nvrtc.shared_memory(device) - 2048
    if write:  # turned queries and packed tokens, of two blocks at most
        room -= 2 * (group * key.dim * 2 + _token_bytes(key) + _token_bytes(value))
    warps, tiles, shared = _shape(key.dim, *step, block, room)
    half = warps // 2, tiles, shared // 2
    two = many and (warps, tiles) == (_MOST, 2) and key.dim <= _DIM
    warps, tiles, shared = half if two else (warps, tiles, shared)
    constants |= {"WARPS": warps, "TILES": tiles, "BLOCKS": 2 if two else 1}
    constants["SHARED"] = max(shared, (warps + 1) * group * key.dim * 4)
    return constants


def _shape(dim: int, tile: int, extra: int, block: int, room: int) -> tuple[int, int, int]:
    """(warps a block, tiles of 16 tokens a step, bytes of shared memory a block) for a layer.

    One block takes a whole multiprocessor: fewer partial results to merge, and its warps read
    memory in order. Three steps in flight a warp; steps of two tiles, then more warps, are worth
    more than more steps (docs/kernels.md has the measurements). A step takes `tile` bytes a tile
    and `extra`, of `room` bytes. A launch of several rounds of blocks has two of half the size on a
    multiprocessor: one computes while the other begins or ends.
    """
    most = (
        _MOST if dim <= _DIM else _MOST // 2
    )  # what leaves each thread the registers its sums need
    shapes = [(most, 2), (most * 3 // 4, 2), (most, 1), (most * 3 // 4, 1), (most // 2, 1)]
    for warps, tiles in shapes:
        stage = tiles * tile + extra
        if block % (16 * tiles) == 0 and warps * 3 * stage <= room:
            return warps, tiles, warps * 3 * stage
    warps = max(1, min(most // 2, room // (2 * (tile + extra))))
    return warps, 1, warps * max(1, room // warps // (tile + extra)) * (tile + extra)


def _token_bytes(side: SideState) -> int:
    """Bytes of one token's row and pairs; per-channel pairs belong to a block, not to a token."""
    if not side.form.quantized:
        return side.dim * 2
    channels = side.form.granularity is Granularity.PER_CHANNEL
    return side.dim * side.form.bits // 8 + (0 if channels else 4 * (side.dim // pair_width(side)))


@functools.cache
def _processors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


_workspaces: weakref.WeakKeyDictionary[Clock, tuple[Tensor, Tensor]] = weakref.WeakKeyDictionary()


def _workspace(clock: Clock, floats: int, rows: int) -> tuple[Tensor, Tensor]:
    """Partial results and arrival counters (zero between launches) of one cache."""
    held = _workspaces.get(clock)
    if held is None or held[0].numel() < floats or held[1].numel() < rows:
        device = clock.device.device
        held = (
            torch.empty(floats, dtype=torch.float32, device=device),
            torch.zeros(rows, dtype=torch.int32, device=device),
        )
        _workspaces[clock] = held
    return held
