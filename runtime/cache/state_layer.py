"""A recurrent layer's place in the packed cache: transformers' own states, in the planner's bytes.

Mamba, gated delta nets and short convolutions run as transformers' modules. They keep a state that
does not grow and the last inputs of a convolution, which transformers makes when a first pass
brings them. Here both are views of memory that was allocated with the cache, of as many elements as
the planner counted: a state of another size or dtype is refused, not made.
"""

from inspect import signature

import torch
from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

from ...planner.errors import BadInput
from ...planner.models.spec import RecurrentState


class StateLayer(LinearAttentionLayer):
    """One recurrent layer's memory: `conv` [B, elements] and `held` [B, elements].

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
        self._conv, self._held, self._whole = conv, held, whole

    @classmethod
    def allocate(
        cls, mixer: RecurrentState, batch: int, dtype: torch.dtype, device: torch.device
    ) -> "StateLayer":
        """Memory for `batch` sequences; `dtype` is the model's."""

        def kept(name: str | None) -> torch.dtype:
            return dtype if name is None else getattr(torch, name)

        conv = torch.zeros(batch, mixer.conv, dtype=kept(mixer.conv_dtype), device=device)
        held = torch.zeros(batch, mixer.state, dtype=kept(mixer.state_dtype), device=device)
        return cls(conv, held)

    @property
    def nbytes(self) -> int:
        return self._conv.nbytes + self._held.nbytes

    def row(self, index: int) -> "StateLayer":
        """The part of one sequence of the batch: the same memory."""
        return StateLayer(self._conv[index : index + 1], self._held[index : index + 1], whole=self)

    def lazy_initialization(
        self,
        conv_states: Tensor | None = None,
        recurrent_states: Tensor | None = None,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
    ) -> None:
        """Take the shapes that the model's first pass brings."""
        if conv_states is not None:
            kernel = conv_states.shape[-1] if conv_kernel_size is None else conv_kernel_size
            self._take_conv(conv_states.shape[1:-1], kernel, conv_states.dtype)
            if self._whole is not None:
                self._whole._take_conv(conv_states.shape[1:-1], kernel, conv_states.dtype)
        if recurrent_states is not None:
            self._take_held(recurrent_states.shape[1:], recurrent_states.dtype)
            if self._whole is not None:
                self._whole._take_held(recurrent_states.shape[1:], recurrent_states.dtype)

    def update_conv_state(self, conv_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        updated: Tensor = super().update_conv_state(conv_states, *args, **kwargs)  # type: ignore[arg-type]
        if self._whole is not None:  # a row with a past makes the batch one with a past
            self._whole.has_previous_state = dict(self.has_previous_state)
        return updated

    def _take_conv(self, channels: torch.Size, kernel: int, dtype: torch.dtype) -> None:
        self.dtype, self.device = dtype, self._conv.device  # type: ignore[assignment]
        self.conv_kernel_size[0] = kernel
        self.conv_states[0] = _as(self._conv, (*channels, kernel), dtype)
        self.is_conv_states_initialized[0] = True

    def _take_held(self, shape: torch.Size, dtype: torch.dtype) -> None:
        self.recurrent_states[0] = _as(self._held, tuple(shape), dtype)
        self.is_recurrent_states_initialized[0] = True


def _as(memory: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """[B, elements] as [B, *shape]. Raises BadInput where the model keeps something else."""
    count = torch.Size(shape).numel()
    if count != memory.shape[1] or dtype != memory.dtype:
        raise BadInput(
            f"a recurrent layer keeps {count} elements of {dtype}, the model description says "
            f"{memory.shape[1]} of {memory.dtype}",
            "this architecture is read wrongly; please report its config.json",
        )
    return memory.view(memory.shape[0], *shape)
