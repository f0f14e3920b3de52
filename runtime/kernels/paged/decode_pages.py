"""Host side of decode_pages.cu: which caches it takes, its constants, its workspace, its launch."""

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ....planner.memory.activation.workspace import block_heads
from .. import nvrtc
from ..formats import address
from .page_format import PageFormat, signs

_SOURCE = Path(__file__).with_name("decode_pages.cu")
MOST_SEQUENCES = 512  # of one launch
_BLOCKS = 2  # of a multiprocessor: one streams while the other begins or merges
_WARPS = 16  # of a multiprocessor that leave sums of heads of 128 channels their registers
_ALONE = 12, 2, 4
"""Warps, tiles a step and steps in flight of a block that has a multiprocessor for itself."""
_WRITTEN = (
    2  # rows a block may hold for each to pack its newest token; more cost more than a launch
)
_RESERVED = 1024  # bytes of shared memory that the system takes of each block


class _Args(ctypes.Structure):
    """`Args` of decode_pages.cu, field by field."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "pool", "table", "lengths", "logits", "out")),
        *((name, ctypes.c_void_p) for name in ("partial", "arrived", "key", "value", "slots")),
        *((name, ctypes.c_longlong) for name in ("page_stride", "head_stride", "table_stride")),
        *((name, ctypes.c_longlong) for name in ("q_stride", "out_stride", "k_stride", "v_stride")),
        *((name, ctypes.c_int) for name in ("heads", "query_heads", "head_blocks", "sequences")),
        ("window", ctypes.c_int),
        *((name, ctypes.c_float) for name in ("scaling", "softcap")),
        ("signs", ctypes.c_uint32 * 8),
    ]


def supports(form: PageFormat, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether decode_pages.cu takes heads of this format."""
    return (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and form.dim % 16 == 0
        and 32 <= form.dim <= 256
        and nvrtc.available()
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def fits(pages: Tensor, form: PageFormat) -> bool:
    """Whether rows of one head lie one after the other, pieces of 16 bytes aligned."""
    return (
        pages.stride(3) == 1
        and pages.stride(2) == pages.shape[3] == form.row_bytes
        and pages.shape[2] % 16 == 0
        and pages.data_ptr() % 16 == pages.stride(0) % 16 == pages.stride(1) % 16 == 0
    )


class PageDecoder:
    """Decode attention of layers of one shape, with the workspace that they share.

    Made once, before any graph is captured; a call launches one kernel and allocates nothing.
    """

    def __init__(
        self,
        form: PageFormat,
        heads: int,
        query_heads: int,
        page_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        softcap: bool = False,
    ) -> None:
        group = query_heads // heads
        taken = block_heads(group)
        index = device.index or 0
        self.form, self.heads, self.query_heads = form, heads, query_heads
        processors = torch.cuda.get_device_properties(device).multi_processor_count
        self._blocks = _BLOCKS * processors
        self._head_blocks = group // taken
        self._processors = processors
        constants = {
            "D": form.dim, "VG": form.dim, "GROUP": taken, "HALF": int(dtype == torch.float16),
            "SOFTCAP": int(softcap), "CODE_BITS": form.bits, "PAGE": page_tokens,
            "ROTATED": int(form.rotated), "SEQUENCES": MOST_SEQUENCES,
        }  # fmt: skip
        shared = _Launch.shared(form, taken, index)
        alone = _Launch.alone(form, taken, index)
        self._shared = shared, shared.kernel(constants, index)
        self._alone = None if alone is None else (alone, alone.kernel(constants, index))
        floats = 2 * self._blocks * taken * (form.dim + 2)
        self._partial = torch.empty(floats, dtype=torch.float32, device=device)
        rows = MOST_SEQUENCES * heads * self._head_blocks
        self._arrived = torch.zeros(rows, dtype=torch.int32, device=device)
        self._signs = _sign_words(form.dim) if form.rotated else (ctypes.c_uint32 * 8)()

    def writes(self, sequences: int) -> bool:
        """Whether a launch over so many sequences had better write their new tokens itself."""
        return sequences * self.heads * self._head_blocks <= _WRITTEN * self._blocks

    def __call__(
        self,
        query: Tensor,
        pages: Tensor,
        table: Tensor,
        lengths: Tensor,
        out: Tensor,
        *,
        scaling: float,
        softcap: float = 0.0,
        sinks: Tensor | None = None,
        window: int = 0,
        new: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        """query [n, query heads, D] over sequences `lengths` [n] -> `out` of the same shape.

        `table` int32 [>= n, pages of a sequence]; rows of `query` and `out` hold their heads one
        after the other. `sinks`, float32 [query heads]; `window` as in reference.py. A sequence
        of length 0 gives zeros.

        `new`: keys and values [>= n, heads, D] of the sequences' last tokens, which their pages do
        not hold yet, and their slots, int64 [>= n]: written within the launch as `write_pages`
        would; a negative slot is left out. The launch before this one may not write pages then.
        """
        step = MOST_SEQUENCES
        key, value, slots = new or (None, None, None)
        for at in range(0, query.shape[0], step):
            part = slice(at, min(at + step, query.shape[0]))
            args = _Args(
                *map(address, (query[part], pages, table[part], lengths[part], sinks, out[part])),
                *map(address, (self._partial, self._arrived)),
                *(address(None if x is None else x[part]) for x in (key, value, slots)),
                *(pages.stride(0), pages.stride(1), table.stride(0)),
                *(query.stride(0), out.stride(0)),
                *(0 if x is None else x.stride(0) for x in (key, value)),
                *(self.heads, self.query_heads, self._head_blocks, part.stop - part.start),
                *(window, scaling * self.form.query_factor, softcap, self._signs),
            )
            rows = (part.stop - part.start) * self.heads * self._head_blocks
            few = self._alone if rows <= self._processors else None
            launch, kernel = few or self._shared
            grid = (launch.blocks * self._processors, 1, 1)
            kernel.launch(grid, launch.warps * 32, args, early=True)


@dataclass(frozen=True, slots=True)
class _Launch:
    """Blocks of a multiprocessor, warps of a block, tiles of 16 tokens a step, bytes of shared
    memory a block."""

    blocks: int
    warps: int
    tiles: int
    bytes_: int

    @classmethod
    def shared(cls, form: PageFormat, taken: int, device: int) -> "_Launch":
        """Two blocks a multiprocessor, three steps in flight where they fit."""
        room = (nvrtc.shared_memory(device) + _RESERVED) // _BLOCKS - _RESERVED
        room -= _static_shared(form, taken)
        tile = 16 * form.row_bytes
        most = _most_warps(form) // _BLOCKS
        shapes = [(most, 2, 3), (most, 1, 3), (most, 1, 2), (most // 2, 1, 2), (2, 1, 2)]
        warps, tiles, steps = next(
            (s for s in shapes if s[0] * s[1] * s[2] * tile <= room), (1, 1, max(1, room // tile))
        )
        return cls(_BLOCKS, warps, tiles, _bytes(form, taken, warps, tiles * steps))

    @classmethod
    def alone(cls, form: PageFormat, taken: int, device: int) -> "_Launch | None":
        """One block, for rows that are no more than multiprocessors; None where it does not fit."""
        warps, tiles, steps = _ALONE
        needed = _bytes(form, taken, warps, tiles * steps)
        room = nvrtc.shared_memory(device) - _static_shared(form, taken)
        fits = warps <= _most_warps(form) and needed <= room
        return cls(1, warps, tiles, needed) if fits else None

    def kernel(self, constants: dict[str, int], device: int) -> nvrtc.Kernel:
        own = {
            "WARPS": self.warps, "TILES": self.tiles, "SHARED": self.bytes_,
            "LEAST": 2 * self.warps, "SHORT": 4 * self.warps, "BLOCKS": self.blocks,
        }  # fmt: skip
        return nvrtc.compile_kernel(_SOURCE, "decode_pages", constants | own, device, self.bytes_)


def _most_warps(form: PageFormat) -> int:
    """Warps of a multiprocessor that leave each thread registers for its sums."""
    return _WARPS if form.dim <= 128 else _WARPS // 2


def _bytes(form: PageFormat, taken: int, warps: int, tiles: int) -> int:
    """Shared memory of a block: `tiles` in flight a warp, or what the warps' merge takes."""
    return max(warps * tiles * 16 * form.row_bytes, (warps + 1) * taken * form.dim * 4)


def _static_shared(form: PageFormat, taken: int) -> int:
    """Bytes of shared memory that decode_pages.cu declares, at most."""
    return 4 * MOST_SEQUENCES + 2 * taken * form.dim + form.row_bytes + 2048


def _sign_words(dim: int) -> ctypes.Array[ctypes.c_uint32]:
    negative = (signs(dim, torch.device("cpu")) < 0).tolist()
    words = (ctypes.c_uint32 * 8)()
    for channel, minus in enumerate(negative):
        words[channel // 32] |= int(minus) << channel % 32
    return words
