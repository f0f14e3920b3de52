"""What sessions change on a model while any of them is open, given back when the last one closes.

A model has one attention implementation, one set of rotary modules and one forward for each
module, however many sessions run on it. The first session puts the runtime's in place, the others
find them there, and the order in which they close does not matter. Passes of one model take turns:
they share its rotary frequencies and the workspace of its packed weights.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from transformers import PreTrainedModel

from .attention import ATTENTION_NAME
from .generation.constants import hold_constants
from .generation.constants import restore as restore_constants
from .latent import pass_latents
from .latent import restore as restore_latents
from .rope import FixedRope

_loans: "WeakKeyDictionary[PreTrainedModel, Loan]" = WeakKeyDictionary()
_registry = threading.Lock()


class Loan:
    """One model as its sessions share it. Sessions that were dropped unclosed do not count."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._turns = threading.RLock()
        self._holders: WeakSet[Any] = WeakSet()
        self._fusing: WeakSet[Any] = WeakSet()
        self._fused: list[Any] = []
        self._attention = _attention_of(model)
        self._rope = FixedRope(model)
        self._latents = pass_latents(model)
        self._workspace: Any = getattr(model, "weight_workspace", None)  # of packed weights
        self._constants = hold_constants(model)
        model.set_attn_implementation(ATTENTION_NAME)

    @contextmanager
    def turn(self, tokens: int, *, rows_in_8_bits: bool = False) -> Iterator[None]:
        """A pass of sequences of up to `tokens` tokens: no other pass of this model meanwhile.

        `rows_in_8_bits`: whether prompts multiply so with packed weights (weights/eight_bits/).
        """
        with self._turns:
            self._rope.fix(tokens)
            if self._workspace is not None:
                self._workspace.rows_in_8_bits = rows_in_8_bits
            yield

    def _fuse(self, model: PreTrainedModel, holder: Any) -> None:
        from .forward import own_stream
        from .fused import fuse

        if not self._fusing:
            with self._turns, own_stream(model.device):  # a pass has a layer's forward replaced
                self._fused = fuse(model)
        self._fusing.add(holder)

    def _leave(self, model: PreTrainedModel, holder: Any) -> bool:
        """Take a holder off; whether it was the last, and the model is as it was."""
        self._holders.discard(holder)
        self._fusing.discard(holder)
        if self._fused and not self._fusing:
            from .fused import restore

            with self._turns:
                restore(self._fused)
        if self._holders:
            return False
        self._rope.restore()
        restore_latents(self._latents)
        restore_constants(self._constants)
        model.set_attn_implementation(self._attention)
        return True


def borrow(model: PreTrainedModel, holder: Any, *, fused: bool) -> Loan:
    """The model's loan, with `holder` among its holders; `fused` as fused.py says."""
    with _registry:
        loan = _loans.get(model)
        if loan is None:
            loan = _loans[model] = Loan(model)
        loan._holders.add(holder)
        try:
            if fused:
                loan._fuse(model, holder)
        except BaseException:
            _return(model, holder)
            raise
    return loan


def give_back(model: PreTrainedModel, holder: Any) -> None:
    """End `holder`'s part of the loan; nothing where it has none."""
    with _registry:
        _return(model, holder)


def _return(model: PreTrainedModel, holder: Any) -> None:
    loan = _loans.get(model)
    if loan is not None and loan._leave(model, holder):
        del _loans[model]


def _attention_of(model: PreTrainedModel) -> dict[str, Any]:
    """The attention implementation of a model's config and of its parts, as transformers takes
    it back."""
    by_part = {"": model.config._attn_implementation}
    for name in model.config.sub_configs:
        part = getattr(model.config, name, None)
        if part is not None:
            by_part[name] = part._attn_implementation
    return by_part
