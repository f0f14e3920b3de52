"""GPU kernels over the packed KV cache: append, decode attention, chunk attention.

The interface is the reference's (runtime/reference.py), so that either can stand behind it:

    append(state, key, value)              quantize-and-append [B, H, n, D]
    attend(query, state, scaling=…, …)     [B, Hq, n, D] -> [B, Hq, n, Dv]
    supports(state)                        whether these kernels take the layer
    capturable(state, tokens)              whether a CUDA graph may hold a pass of `tokens` tokens
    appends_on_device(state)               whether it may hold all of a pass but its attention

Four ways are behind it. Appending is Triton (triton_append.py; a decode step's together
with its RoPE, rope_append.py; early.py says which launches overlap). One token attends through
CUDA C++ that NVRTC compiles when first needed (cuda_decode.py, decode.cu); a chunk through
segments staged for a library's fused attention (staged.py); what neither takes through a
general Triton kernel (triton_attend.py; stages.py says how many loads ahead).
TRITON_INTERPRET=1 runs the Triton ones on a CPU.

Memory layout: exactly planner/formats/kv_format.py's shapes in natural order, nothing permuted, as
runtime/cache/packing.py draws. Pairs (scale, offset) are innermost, one 32-bit word. Kernels get
the operand order of the tensor cores from choosing which channels a lane loads, not from the bytes:
a sum over channels does not care about their order, so a lane takes contiguous pieces of a row
and the query is permuted to match once (docs/kernels.md).
"""

import functools
import importlib.util
import os

import torch
from torch import Tensor

from .. import reference
from ..cache.layer_state import LayerState
from ..weights.workspace import Keep


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def supports(state: LayerState) -> bool:
    """Whether `attend` takes this layer: on a GPU (or in Triton's interpreter), rows of words."""
    runs = state.key.values.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    return runs and _has_triton() and all(_whole(state, side) for side in ("key", "value"))


def capturable(state: LayerState, tokens: int) -> bool:
    """Whether a pass of `tokens` tokens reads no length on the host, so a CUDA graph may hold it.

    Not a staged chunk, whose number of segments the host counts.
    """
    from . import staged

    stages = not state.aligned and staged.supports(state, tokens)
    return appends_on_device(state) and (tokens == 1 or not stages)


def appends_on_device(state: LayerState) -> bool:
    """Whether appending reads no length on the host, so a CUDA graph may hold it."""
    return supports(state) and _appends(state)


def append(state: LayerState, key: Tensor, value: Tensor) -> None:
    """Append [B, H, n, D] keys and values that `state.clock` already counts."""
    if not _appends(state):
        reference.append(state, key, value)
        return
    from . import triton_append

    triton_append.append(state, key, value)


def attend(
    query: Tensor,
    state: LayerState,
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    keep: Keep | None = None,
) -> Tensor:
    """Causal attention of the last n tokens, [B, Hq, n, D] -> [B, Hq, n, Dv], dtype of `query`.

    Query i has position total - n + i. `sinks`, [Hq], is one more logit in each row's softmax.
    `keep` may be asked for room where one token's result is written in whole numbers too.
    """
    from . import cuda_decode, staged, triton_attend

    n = query.shape[2]
    if state.aligned:
        return triton_attend.attend(query, state, scaling=scaling, softcap=softcap, sinks=sinks)
    if n == 1 and cuda_decode.supports(state, query):
        return cuda_decode.decode(
            query, state, scaling=scaling, softcap=softcap, sinks=sinks, keep=keep
        )
    half = query.dtype in (torch.bfloat16, torch.float16)
    if n > 1 and half and softcap is None and staged.supports(state, n):
        return staged.attend(query, state, scaling=scaling, sinks=sinks)
    return triton_attend.attend(query, state, scaling=scaling, softcap=softcap, sinks=sinks)


def _appends(state: LayerState) -> bool:
    from . import triton_append

    return triton_append.supports(state.key) and triton_append.supports(state.value)


def _whole(state: LayerState, side: str) -> bool:
    from .triton_read import supports as reads

    return reads(state.key if side == "key" else state.value)


DOOR = (
    "early",
    "latent",
    "nvrtc",
    "paged.decode_pages",
    "paged.page_format",
    "paged.stage_pages",
    "paged.write_pages",
    "rope_append",
    "stages",
)
"""Modules that other rooms may import, beside what stands above."""
