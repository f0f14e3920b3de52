"""Host side of decode.cu: which layers it takes, its constants, its workspace, its launch."""

import ctypes
import functools
import weakref
from pathlib import Path

import torch
from torch import Tensor

from ...planner.formats.code_tables import planes
from ...planner.formats.configuration import Granularity
from ...planner.memory.activation.workspace import TAIL_PARTS, block_heads, decode_splits
from ..cache.layer_state import Clock, LayerState, SideState
from ..weights.workspace import Keep
from . import nvrtc
from .formats import address, format_constants, pair_width, per_channel, ring_rows

_MOST, _DIM = 16, 128  # warps of a multiprocessor that leave sums of heads so wide their registers
_ENOUGH = 144 * 1024  # bytes of steps in flight; the rest is the L1 cache of launches behind, too
_UNIT = 128  # channels of a head that are a unit of whole numbers
_MOST_BYTES = 2**34  # of a side, whose pieces of 8 bytes or more are counted in 31 bits
_SOURCE = Path(__file__).with_name("decode.cu")


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
    ]


def supports(state: LayerState, query: Tensor) -> bool:
    """Whether decode.cu takes this layer: see `_deals` for the shapes; heads of one width."""
    key, value = state.key, state.value
    same = {x.values.dtype for x in (key, value) if not x.form.quantized} <= {query.dtype}
    return (
        key.values.is_cuda
        and max(key.values.nbytes, value.values.nbytes) < _MOST_BYTES
        and same
        and query.dtype in (torch.bfloat16, torch.float16)
        and nvrtc.available()
        and torch.cuda.get_device_capability(key.values.device) >= (8, 0)
        and key.dim == value.dim
        and key.dim % 16 == 0
        and 32 <= key.dim <= 256
        and _deals(key, 4)
        and _deals(value, 8)
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


def decode(
    query: Tensor,
    state: LayerState,
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    keep: Keep | None = None,
) -> Tensor:
    """Attention of one token, [B, Hq, 1, D] -> [B, Hq, 1, D]. `supports` must hold.

    `sinks`, float [Hq], is one more logit in each row's softmax. `keep`, asked for heads of 128
    channels, gives room for the result in whole numbers, which are written too. Launch shape
    depends on the buffers only, never on the length, so a CUDA graph may capture the call.
    """
    key, value = state.key, state.value
    batch, query_heads, _, dim = query.shape
    heads = key.values.shape[1]
    group = query_heads // heads
    taken = block_heads(group)
    blocks = group // taken
    tail = any(t is not None for t in (key.residual, key.sinks, value.residual, value.sinks))
    device, rows = query.device.index or 0, batch * heads * blocks
    many = rows > _processors(device)
    constants = _constants(key, value, query.dtype, taken, softcap is not None, tail, many, device)
    splits = decode_splits(rows, _processors(device), key.values.shape[2])
    parts = splits + (TAIL_PARTS if tail else 0)
    partial, arrived = _workspace(state.clock, rows * parts * taken * (dim + 2), rows)
    query = query.contiguous()
    out = torch.empty_like(query)
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
    )
    kernel.launch((splits, heads * blocks, batch), constants["WARPS"] * 32, args, early=True)
    return out


def _constants(
    key: SideState,
    value: SideState,
    dtype: torch.dtype,
    group: int,
    softcap: bool,
    tail: bool,
    many: bool,
    device: int,
) -> dict[str, int]:
    """`many`: the launch has more blocks than the device multiprocessors."""
    channels = per_channel(key)
    constants = format_constants(key, value, dtype)
    constants |= {"GROUP": group, "TAIL": int(tail), "SOFTCAP": int(softcap)}
    block = key.form.block if channels else 32
    step = 16 * (_token_bytes(key) + _token_bytes(value)), 4 * key.dim if channels else 0
    warps, tiles, shared = _shape(key.dim, *step, block, device)
    half = warps // 2, tiles, shared // 2
    two = many and (warps, tiles) == (_MOST, 2) and key.dim <= _DIM
    warps, tiles, shared = half if two else (warps, tiles, shared)
    constants |= {"WARPS": warps, "TILES": tiles, "BLOCKS": 2 if two else 1}
    constants["SHARED"] = max(shared, (warps + 1) * group * key.dim * 4)
    return constants


def _shape(dim: int, tile: int, extra: int, block: int, device: int) -> tuple[int, int, int]:
    """(warps a block, tiles of 16 tokens a step, bytes of shared memory a block) for a layer.

    One block takes a whole multiprocessor: fewer partial results to merge, and its warps read
    memory in order. Three steps in flight a warp, two where these are `_ENOUGH` bytes; steps of two
    tiles, then more warps, are worth more than more steps (docs/kernels.md has the measurements).
    A step takes `tile` bytes a tile and `extra`. A launch of several rounds of blocks has two of
    half the size on a multiprocessor: one computes while the other begins or ends.
    """
    room = nvrtc.shared_memory(device) - 2048
    most = (
        _MOST if dim <= _DIM else _MOST // 2
    )  # what leaves each thread the registers its sums need
    shapes = [(most, 2), (most * 3 // 4, 2), (most, 1), (most * 3 // 4, 1), (most // 2, 1)]
    for warps, tiles in shapes:
        stage = tiles * tile + extra
        if block % (16 * tiles) == 0 and warps * 3 * stage <= room:
            steps = 2 if warps * 2 * stage >= _ENOUGH else 3
            return warps, tiles, warps * steps * stage
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
