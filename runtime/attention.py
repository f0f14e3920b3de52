"""Attention over packed keys and values, for any transformers model that takes an attention name.

`register()` adds one named function to transformers' AttentionInterface and one to its
AttentionMaskInterface; nothing else global is touched, and a model uses them only where its
`_attn_implementation` is that name. A cache layer's `update` returns a `PackedKV` handle where
transformers' own layers return tensors; models pass it on unread, and the registered function
gets the layer's packed state from it.

Two implementations stand behind `append` and `attend`: the reference (any device, every format)
and the kernels (CUDA, the formats they `supports`). Both get what rotation and smoothing
have already been applied to, and both read lengths from the state's clock, which counts the
tokens being appended before the first layer appends them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from ..planner.errors import BadInput
from . import latent, reference
from .cache.affine import map_in, map_out
from .cache.block_scales import freeze_tensor
from .cache.layer_state import LayerState, SideState
from .cache.rotation import rotate, rotate_back
from .cache.smoothing import freeze_mean, smooth
from .gpu_kernels import gpu_kernels
from .weights.workspace import Keep

ATTENTION_NAME = "kvpareto_packed"


class PackedKV:
    """What `update` returns for K and for V: the layer's state, not a tensor.

    A model that reads or changes keys or values after the update cannot run on a packed cache;
    touching the handle says so.
    """

    __slots__ = ("state",)

    def __init__(self, state: LayerState) -> None:
        self.state = state

    def __getattr__(self, name: str) -> object:
        raise _touched(name)

    def to(self, device: torch.device) -> "PackedKV":
        """Itself: layers that share keys bring them to their own device first (Gemma 3n in
        transformers 5.17), and that is the one where they are."""
        if torch.device(device) != self.state.clock.device.device:
            raise _touched(f"to {device}")
        return self

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise _touched(getattr(func, "__name__", "a function"))


def _touched(what: str) -> BadInput:
    return BadInput(
        f"this model's attention reads keys or values after the cache update ({what})",
        "its attention cannot run on a packed KV cache; use engine transformers",
    )


def register() -> None:
    """Make `ATTENTION_NAME` known to transformers. Idempotent."""
    AttentionInterface.register(ATTENTION_NAME, packed_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, packed_mask)


def packed_mask(
    *args: object,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    **kwargs: object,
) -> None:
    """No mask tensor: causality, windows and left padding come from the cache's own positions.

    Raises BadInput for a mask that those do not express.
    """
    if not allow_is_causal_skip:
        raise BadInput(
            "this model asks for a mask that is not causal (images, packed or two-way text)",
            "a packed KV cache runs causal text only",
        )
    if attention_mask is not None and not bool(attention_mask.all()):
        raise BadInput(
            "an attention mask with holes was passed to a packed cache",
            "tell the cache each sequence's left padding: cache.pad_left(...)",
        )


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: object,
    value: object,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """transformers' attention function: query [B, Hq, n, D] -> output [B, n, Hq, Dv].

    `softcap` (Gemma 2) and `s_aux`, one sink logit a head (gpt-oss), as models pass them. The
    window comes from the layer's state, where the planner's model description put it.
    """
    if not isinstance(key, PackedKV):
        raise BadInput(
            f"attention {ATTENTION_NAME!r} was called without a packed cache",
            "pass past_key_values=PackedCache(...), or use kvpareto.runtime.load",
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if key.state.latent:
        mixed = latent.attend(module, query, key.state, scale)
        return mixed.transpose(1, 2).contiguous(), None
    mixed = attend(query, key.state, scaling=scale, softcap=softcap, sinks=s_aux)
    return mixed.transpose(1, 2).contiguous(), None


def append(state: LayerState, key: Tensor, value: Tensor) -> None:
    """Append post-RoPE keys and values [B, H, n, D] that `state.clock` already counts."""
    key, value = _turned(state.key, key, state.rotated), _turned(state.value, value, state.rotated)
    begins = key.shape[2] > 1 or state.clock.host == 1  # decoding finds all of it frozen
    if state.key.mean is not None:
        if begins:
            freeze_mean(state.key.mean, key, state.clock)
        key = smooth(key, state.key.mean)
    for side, x in ((state.key, key), (state.value, value)):
        if side.tensor is not None and begins:
            freeze_tensor(side.tensor, x, state.clock)
    _backend(state).append(state, key, value)


def steps_at_once(state: LayerState, query: Tensor) -> bool:
    """Whether `turn_and_append` takes a pass of queries [B, n, H, D]."""
    kernels = gpu_kernels()
    if query.shape[1] != 1 or kernels is None or _backend(state) is not kernels:
        return False
    from .kernels import rope_append

    return rope_append.supports(state, query.dtype)


def turn_and_append(
    state: LayerState, query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """One token's RoPE and append in one launch: queries, keys, values [B, 1, H, D], which
    `state.clock` already counts; the turned queries [B, H, 1, D]."""
    from .kernels import rope_append

    return rope_append.rope_append(state, query, key, value, cos, sin)


def attends_at_once(state: LayerState, new: Sequence[Tensor]) -> bool:
    """Whether `turn_append_and_attend` takes a pass of `new`."""
    kernels = gpu_kernels()
    if state.clock.seam is not None or kernels is None or _backend(state) is not kernels:
        return False
    from .kernels import cuda_decode

    return cuda_decode.writes(state, cuda_decode.NewToken(*new))


def turn_append_and_attend(
    state: LayerState, new: Sequence[Tensor], *, scaling: float, keep: Keep | None = None
) -> Tensor:
    """One token's RoPE, append and attention in one launch: queries, keys, values [B, 1, H, D],
    which `state.clock` already counts, cos and sin [B or 1, 1, D]; -> [B, H, 1, D]."""
    from .kernels import cuda_decode

    token = cuda_decode.NewToken(*new)
    query = token.query.transpose(1, 2)
    return cuda_decode.decode(query, state, scaling=scaling, keep=keep, new=token)


def attend(
    query: Tensor,
    state: LayerState,
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    keep: Keep | None = None,
) -> Tensor:
    """Causal attention of the cache's last n tokens: [B, Hq, n, D] -> [B, Hq, n, Dv].

    `keep` gives a kernel room for its result in whole numbers, for the product that follows."""
    call = partial(_attend, state=state, scaling=scaling, softcap=softcap, sinks=sinks, keep=keep)
    seam = state.clock.seam
    return call(query) if seam is None else seam(query, state.value.dim, call)


def _attend(
    query: Tensor,
    state: LayerState,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
    keep: Keep | None = None,
) -> Tensor:
    if state.key.affine is not None:
        query = map_out(query, state.key.affine)
    elif state.rotated and state.key.form.quantized:
        query = rotate(query)
    backend = _backend(state)
    own = state.value.affine is None and not (state.rotated and state.value.form.quantized)
    more = {"keep": keep} if keep is not None and own and backend is gpu_kernels() else {}
    mixed = backend.attend(query, state, scaling=scaling, softcap=softcap, sinks=sinks, **more)
    if state.value.affine is not None:
        return map_out(mixed, state.value.affine)
    if state.rotated and state.value.form.quantized:
        mixed = rotate_back(mixed)
    return mixed


def _turned(side: SideState, x: Tensor, rotated: bool) -> Tensor:
    """Keys or values as the side stores them."""
    if side.affine is not None:
        return map_in(x, side.affine)
    return rotate(x) if rotated and side.form.quantized else x


class Backend(Protocol):
    """What the reference and the kernels both offer; see reference.py for shapes."""

    def append(self, state: LayerState, key: Tensor, value: Tensor) -> None: ...

    def attend(
        self,
        query: Tensor,
        state: LayerState,
        *,
        scaling: float,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor: ...

    def capturable(self, state: LayerState, tokens: int) -> bool: ...

    def appends_on_device(self, state: LayerState) -> bool: ...


def capturable(state: LayerState, tokens: int) -> bool:
    """Whether a CUDA graph may capture a pass of `tokens` tokens: no length is read on the host."""
    if state.latent:
        return tokens == 1 and latent.supported_by_kernels(state)
    return _backend(state).capturable(state, tokens)


def capturable_around(state: LayerState) -> bool:
    """Whether a pass may be captured but for its attention (piecewise_graphs.py)."""
    if state.latent:
        return latent.supported_by_kernels(state)
    return _backend(state).appends_on_device(state)


def _backend(state: LayerState) -> Backend:
    """The kernels where they take this layer, else the reference."""
    if state.kernels and state.clock.device.is_cuda:
        kernels = gpu_kernels()
        if kernels is not None and kernels.supports(state):
            return kernels
    return reference
