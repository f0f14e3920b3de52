"""The packed KV cache as transformers sees it: one preallocated layer state for each layer.

Built from the planner's model description and a configuration, so that its buffers are the
planner's KVFormat to the byte. Keys and values are appended in place; `update` hands the
model's attention a handle on the state instead of tensors (see attention.py).
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from ...planner.errors import BadInput, NothingFits
from ...planner.formats.configuration import Configuration
from ...planner.formats.kv_format import KVFormat
from ...planner.models.spec import ModelSpec
from ...planner.units import format_bytes
from ..attention import PackedKV, append
from ..failures import is_out_of_memory
from .layer_shape import check_smoothing, layer_shape, state_of
from .layer_state import Clock, LayerState
from .state_layer import StateLayer


class PackedLayer(CacheLayerMixin):
    """One attention layer's keys and values, packed."""

    is_croppable = False

    def __init__(self, state: LayerState, capacity: int, leads: bool) -> None:
        super().__init__()
        self.state = state
        self.capacity = capacity
        self.leads = leads  # the first packed layer moves the clock that all share
        self.is_sliding = state.window is not None
        self.is_initialized = True

    @property
    def batch_size(self) -> int:
        return self.state.key.values.shape[0]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: buffers are allocated with the cache."""

    def update(  # type: ignore[override]
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[PackedKV, PackedKV]:
        """Append [B, H, n, D] post-RoPE keys and values; the handle stands for both results."""
        state = self.state
        batch, heads, tokens, dim = key_states.shape
        held = state.key.values.shape
        if (batch, heads, dim) != (held[0], held[1], state.key.dim):
            raise BadInput(
                f"keys of {batch} x {heads} heads x {dim} do not fit a cache of "
                f"{held[0]} x {held[1]} heads x {state.key.dim}",
                "build the cache for this model and batch",
            )
        if self.leads:
            _check_room(state.clock, tokens, self.capacity)
            state.clock.advance(tokens)
        append(state, key_states, value_states)
        handle = PackedKV(state)
        return handle, handle

    def get_seq_length(self) -> int:
        return self.state.clock.host

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.state.clock.host + query_length, 0

    def get_max_length(self) -> int:
        return self.capacity

    get_max_cache_shape = get_max_length  # the name before transformers 5.20

    def reset(self) -> None:
        """Forget the tokens; the clock is reset by the cache, means with the first append."""
        if self.state.key.mean is not None:
            self.state.key.mean.zero_()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        raise BadInput(
            "beam search is not supported on a packed cache", "sample or decode greedily"
        )

    def crop(self, tokens_to_remove: int) -> None:
        raise BadInput("a packed cache cannot be cut back", "reset it and prefill again")


class EmptyLayer(CacheLayerMixin):
    """The place of a layer that stores nothing: it reads another's cache, or has no mixer."""

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to allocate."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        raise BadInput(
            "a layer that the model description says stores no keys tried to store some",
            "this architecture is read wrongly; please report its config.json",
        )

    def get_seq_length(self) -> int:
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length

    def reset(self) -> None:
        """Nothing is held."""


class PackedCache(Cache):
    """Packed keys and values of all layers for `tokens` tokens of `batch` sequences.

    `spec` is the model as the planner reads it. A layer with a sliding window takes appends as
    long as the configuration's largest chunk.
    Raises BadInput for layers that are no KV cache, NothingFits when memory runs out.
    """

    def __init__(
        self,
        spec: ModelSpec,
        config: Configuration,
        *,
        tokens: int,
        batch: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        kernels: bool = True,
    ) -> None:
        where = torch.device(device)
        half = dtype if dtype == torch.float16 else torch.bfloat16
        shapes = [
            layer_shape(layer, index, tokens, spec.model_type)
            for index, layer in enumerate(spec.layers)
        ]
        check_smoothing(spec, config)
        self.clock = Clock(batch, where)
        self.capacity = tokens
        layers: list[PackedLayer | EmptyLayer | StateLayer] = []
        leads = True
        try:
            for index, shape in enumerate(shapes):
                recurrent = state_of(spec.layers[index], spec.model_type)
                if recurrent is not None:
                    layers.append(StateLayer.allocate(recurrent, batch, dtype, where))
                    continue
                if shape is None:
                    layers.append(EmptyLayer())
                    continue
                form = KVFormat.of(config, index)
                state = LayerState.allocate(
                    form,
                    batch=batch,
                    heads=shape.heads,
                    key_dim=shape.key_dim,
                    value_dim=shape.value_dim,
                    tokens=form.capacity(shape.window, tokens, config.largest_chunk),
                    window=shape.window,
                    clock=self.clock,
                    dtype=half,
                    rotated=config.rotation,
                    kernels=kernels,
                )
                layers.append(PackedLayer(state, tokens, leads))
                leads = False
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            held = sum(layer.state.nbytes for layer in layers if isinstance(layer, PackedLayer))
            done = f"{len(layers)} of {len(shapes)} layers"
            layers.clear()
            raise NothingFits(
                f"the KV cache of {tokens} tokens does not fit: memory ran out "
                f"after {format_bytes(held)} for {done}",
                "fewer K/V bits, a shorter context or a smaller batch",
            ) from error
        super().__init__(layers=layers)  # type: ignore[arg-type]

    @property
    def states(self) -> list[LayerState]:
        return [layer.state for layer in self.layers if isinstance(layer, PackedLayer)]

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, equal to the planner's `kv_bytes`."""
        recurrent = (layer.nbytes for layer in self.layers if isinstance(layer, StateLayer))
        return sum(state.nbytes for state in self.states) + sum(recurrent)

    @property
    def recurrent(self) -> bool:
        """Whether a layer carries a state from token to token."""
        return any(isinstance(layer, StateLayer) for layer in self.layers)

    def check_room(self, tokens: int) -> None:
        """Raise BadInput where `tokens` more do not fit."""
        _check_room(self.clock, tokens, self.capacity)

    def pad_left(self, starts: Tensor) -> None:
        """Say how many padding tokens each sequence begins with, int [B]; before any append."""
        if self.clock.host or (starts.shape[0] == 1 and bool(starts.any())):
            raise BadInput(
                "padding is set on an empty cache of several sequences",
                "reset the cache first, and drop the padding of a single sequence",
            )
        if self.recurrent and bool(starts.any()):
            raise BadInput(
                "recurrent layers would read the padding of the shorter prompts",
                "prompts of one length, or Session.queue (`kvpareto run --batch`)",
            )
        self.clock.begin(starts.tolist())

    def reset(self) -> None:
        self.clock.reset()
        super().reset()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.clock.host


def _check_room(clock: Clock, tokens: int, capacity: int) -> None:
    if clock.host + tokens > capacity:
        raise BadInput(
            f"{clock.host + tokens} tokens do not fit a cache of {capacity}",
            "load with a longer context or output",
        )
