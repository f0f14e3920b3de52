"""A recurrent layer's place in the packed cache: transformers' own states, in the planner's bytes.

Mamba, gated delta nets and short convolutions run as transformers' modules. They keep a state that
does not grow and the last inputs of a convolution, which transformers makes when a first pass
brings them. Here both are views of memory that was allocated with the cache, of as many elements as
the planner counted: a state of another size or dtype is refused, not made.
"""

import logging
from collections import defaultdict
from functools import cache
from inspect import signature

import torch
import transformers
from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

from ...planner.errors import BadInput
from ...planner.models.spec import RecurrentState

logger = logging.getLogger(__name__)


class StateLayer(LinearAttentionLayer):
    """One recurrent layer's memory: `conv` [B, elements] and `held` [B, elements].

    A layer that keeps several states of a kind (Kimi's convolutions of queries, keys and values)
    has them side by side, in the order in which the first pass brings them.
    `whole` is the layer of the batch whose row this one is (serving/row.py); None for a layer of
    its own.
    """

    def __init__(self, conv: Tensor, held: Tensor, whole: "StateLayer | None" = None) -> None:
        if "conv_kernel_size" not in signature(LinearAttentionLayer.update_conv_state).parameters:
            raise BadInput(
                "this transformers keeps recurrent states in another way",
                "pip install -U transformers runs models with recurrent layers",
            )
        super().__init__()
        self.is_conv_states_initialized = defaultdict(bool)
        self.is_recurrent_states_initialized = defaultdict(bool)
        self.has_previous_state = defaultdict(bool)
        self._conv, self._held, self._whole = _Memory(conv), _Memory(held), whole

    @staticmethod
    def memory(
        mixer: RecurrentState, batch: int, dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """`conv` and `held` for `batch` sequences; `dtype` is the model's."""
        if mixer.kind in ("mamba2", "gated_delta"):
            _warn_of_older_scans()

        def kept(name: str | None) -> torch.dtype:
            return dtype if name is None else getattr(torch, name)

        conv = torch.zeros(batch, mixer.conv, dtype=kept(mixer.conv_dtype), device=device)
        held = torch.zeros(batch, mixer.state, dtype=kept(mixer.state_dtype), device=device)
        return conv, held

    @property
    def nbytes(self) -> int:
        return self._conv.elements.nbytes + self._held.elements.nbytes

    def memories(self) -> tuple[Tensor, Tensor]:
        """`conv` and `held` of the whole batch."""
        return self._conv.elements, self._held.elements

    def row(self, index: int) -> "StateLayer":
        """The part of one sequence of the batch: the same memory."""
        return StateLayer(*self.memory_of(index), whole=self)

    def memory_of(self, index: int) -> tuple[Tensor, Tensor]:
        """`conv` and `held` of one sequence of the batch: the same memory."""
        here = slice(index, index + 1)
        return self._conv.elements[here], self._held.elements[here]

    def lazy_initialization(
        self,
        conv_states: Tensor | None = None,
        recurrent_states: Tensor | None = None,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
    ) -> None:
        """Take the shapes that the model's first pass brings."""
        for layer in (self, self._whole):
            if layer is None:
                continue
            layer.number_of_states = max(layer.number_of_states, state_idx + 1)
            if conv_states is not None:
                kernel = conv_states.shape[-1] if conv_kernel_size is None else conv_kernel_size
                shape = *conv_states.shape[1:-1], kernel
                layer._take_conv(state_idx, shape, conv_states.dtype)
            if recurrent_states is not None:
                shape = tuple(recurrent_states.shape[1:])
                layer._take_held(state_idx, shape, recurrent_states.dtype)

    def keep(self, state: Tensor) -> None:
        """Take a state of a model that has no convolution, whose update would say that there is a
        past (MiniMax)."""
        self.update_recurrent_state(state)
        for layer in (self, self._whole):
            if layer is not None:
                layer.has_previous_state[0] = True

    def update_conv_state(self, conv_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        updated: Tensor = super().update_conv_state(conv_states, *args, **kwargs)  # type: ignore[arg-type]
        if self._whole is not None:  # a row with a past makes the batch one with a past
            self._whole.has_previous_state.update(self.has_previous_state)
        return updated

    def _take_conv(self, index: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        if self.is_conv_states_initialized[index]:  # by another row
            return
        self.dtype, self.device = dtype, self._conv.elements.device  # type: ignore[assignment]
        self.conv_kernel_size[index] = shape[-1]
        self.conv_states[index] = self._conv.take(shape, dtype)
        self.is_conv_states_initialized[index] = True

    def _take_held(self, index: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        if self.is_recurrent_states_initialized[index]:
            return
        self.recurrent_states[index] = self._held.take(shape, dtype)
        self.is_recurrent_states_initialized[index] = True

    @property
    def unused(self) -> int:
        """Elements that no state of the model's has taken, of each sequence."""
        return self._conv.left + self._held.left


@cache
def _warn_of_older_scans() -> None:
    """Once: the planner counts what chunks take since transformers 5.20 rewrote the scans."""
    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    if (major, minor) < (5, 20):
        logger.warning(
            "transformers %s: recurrent layers take more memory for a chunk than was planned, "
            "Mamba-2 ten times as much; 5.20 or newer takes what was planned",
            transformers.__version__,
        )


class _Memory:
    """Elements [B, count] of which a layer's states are taken in turn."""

    def __init__(self, elements: Tensor) -> None:
        self.elements = elements
        self.left = elements.shape[1]

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The next of them as [B, *shape]. Raises BadInput where the model keeps something else."""
        count, (batch, total) = torch.Size(shape).numel(), self.elements.shape
        if count > self.left or dtype != self.elements.dtype:
            raise BadInput(
                f"a recurrent layer keeps {count} elements of {dtype}, the model description says "
                f"{self.left} of {self.elements.dtype}",
                "this architecture is read wrongly; please report its config.json",
            )
        start = total - self.left
        self.left -= count
        return self.elements[:, start : start + count].view(batch, *shape)
