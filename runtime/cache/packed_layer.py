"""Layers of the packed cache as transformers sees them: attention's, and what stores nothing."""

from enum import Enum, auto

from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from ...planner.errors import BadInput
from ..attention import (
    PackedKV,
    append,
    attends_at_once,
    steps_at_once,
    turn_and_append,
    turn_append_and_attend,
)
from ..weights.workspace import Keep
from .layer_state import Clock, LayerState


class Handover(Enum):
    """What a pass does where it hands its keys and values over (last_layer.py)."""

    BOTH = auto()
    """They are stored, and attended to."""
    STORES = auto()
    """They are stored, and the pass ends there."""
    READS = auto()
    """They are stored already, and attended to."""


class KeysStored(Exception):
    """Keys and values are stored, and nothing else of the layer was asked for."""


class PackedLayer(CacheLayerMixin):
    """One attention layer's keys and values, packed."""

    is_croppable = False
    handover = Handover.BOTH

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
        """Append [B, H, n, D] post-RoPE keys and values; the handle stands for both results.

        Raises KeysStored where the pass ends with that.
        """
        state = self.state
        if self.handover is not Handover.READS:
            self._count(key_states)
            append(state, key_states, value_states)
        if self.handover is Handover.STORES:
            raise KeysStored
        handle = PackedKV(state)
        return handle, handle

    def step(
        self, query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor | None:
        """Turn one token's queries and keys [B, 1, H, D] by RoPE and append, in one launch.

        The turned queries [B, H, 1, D]; None, and nothing done, where no kernel does it.
        """
        if self.handover is not Handover.BOTH or not steps_at_once(self.state, query):
            return None
        self._count(key.transpose(1, 2))
        return turn_and_append(self.state, query, key, value, cos, sin)

    def attend(self, *new: Tensor, scaling: float, keep: Keep | None = None) -> Tensor | None:
        """One token's RoPE, append and attention in one launch: queries, keys, values [B, 1, H, D],
        cos and sin [B or 1, 1, D].

        What attention gives, [B, H, 1, D]; None, and nothing done, where no kernel does it.
        """
        if self.handover is not Handover.BOTH or not attends_at_once(self.state, new):
            return None
        self._count(new[1].transpose(1, 2))
        return turn_append_and_attend(self.state, new, scaling=scaling, keep=keep)

    def _count(self, key_states: Tensor) -> None:
        """Check that keys [B, H, n, D] fit, and let the clock count them."""
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
            check_room(state.clock, tokens, self.capacity)
            state.clock.advance(tokens)

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
        for side in (self.state.key, self.state.value):
            if side.tensor is not None:
                side.tensor.fill_(1.0)

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


def check_room(clock: Clock, tokens: int, capacity: int) -> None:
    if clock.host + tokens > capacity:
        raise BadInput(
            f"{clock.host + tokens} tokens do not fit a cache of {capacity}",
            "load with a longer context or output",
        )
