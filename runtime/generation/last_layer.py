"""The last layer of a prompt's pass, for the rows that are read.

A pass over n tokens of a prompt gives one row of logits a sequence. Every layer but the last has
to run for all n rows, because the next one reads them. Of the last one the cache keeps keys and
values of all rows, and the head reads one row: its queries, attention, output projection and
feed-forward of the other rows meet nobody. In a model of 32 layers that is 3 % of a prompt.

So the last layer runs twice. First for all rows, until it hands its keys and values to the cache,
and no further. Then for the last row alone, as a decode step runs it, over what was just stored.

That is the same where the layer keeps keys and values (or latents) and nothing else. It is left
whole where it carries a state from token to token (Mamba, linear attention), where it stores
nothing because it reads another layer's keys (Gemma 3n), where it is given something by token that
this module cannot cut, and for everybody who calls the model without `of_one_row`: teacher forcing
and scores read all rows.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from inspect import Parameter, signature
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...planner.memory.activation.last_layer import WHOLE_TO
from ..cache.kv_cache import PackedCache
from ..cache.packed_layer import Handover, KeysStored, PackedLayer

LEAST = WHOLE_TO  # rows of a pass up to which it is whole
BY_TOKEN = {"hidden_states": 3, "position_embeddings": 3, "position_ids": 2, "cache_position": 1}
"""Arguments of a layer that have a row for each token, and their dimensions: [B, n, ...] or [n]."""


class LastLayer:
    """The last decoder layer of a model over one cache."""

    def __init__(self, module: nn.Module, held: PackedLayer) -> None:
        self._module, self._held = module, held
        self._names = [
            name
            for name, given in signature(type(module).forward).parameters.items()
            if given.kind is Parameter.POSITIONAL_OR_KEYWORD and name != "self"
        ]

    @classmethod
    def of(cls, model: nn.Module, cache: PackedCache) -> Self | None:
        """None where the last layer has to run whole."""
        count = len(cache.layers)
        stacks = (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
        stack = next(stacks, None)  # the outermost: a layer's experts may be as many
        if stack is None or count < 2 or len(set(stack)) < count:  # Zamba's layers are one layer
            return None
        held = cache.layers[-1]
        if type(held) is not PackedLayer:  # what carries a state is another class
            return None
        found = cls(stack[-1], held)
        return found if found._names[:1] == ["hidden_states"] else None

    def of_one_row(self, rows: int) -> AbstractContextManager[None]:
        """While it is entered, a pass of `rows` rows gives the last row of each sequence only,
        where that saves anything. No other pass of the model may run meanwhile."""
        return self._replaced() if rows > LEAST else nullcontext()

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        own, fused = self._module.forward, self._module.__dict__.get("forward")
        self._module.forward = partial(self._run, own)
        try:
            yield
        finally:
            if fused is None:
                del self._module.forward
            else:
                self._module.forward = fused

    def _run(self, own: Any, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self._names, args, strict=False)) | kwargs
        last = _last_row(given)
        if last is None:
            return own(*args, **kwargs)
        with self._handing(Handover.STORES):
            try:
                return own(*args, **kwargs)  # it stored nothing, and is whole
            except KeysStored:
                pass
        clock = self._held.state.clock
        with self._handing(Handover.READS):
            appended, clock.appending = clock.appending, 1
            try:
                found = own(**last)
            finally:
                clock.appending = appended
        rows = given["hidden_states"].shape[1]
        if isinstance(found, Tensor):
            return _repeated(found, rows)
        return _repeated(found[0], rows), *found[1:]

    @contextmanager
    def _handing(self, handover: Handover) -> Iterator[None]:
        self._held.handover = handover
        try:
            yield
        finally:
            self._held.handover = Handover.BOTH


def _last_row(given: dict[str, Any]) -> dict[str, Any] | None:
    """A layer's arguments for the last token of each sequence; None where one cannot be cut."""
    hidden = given["hidden_states"]
    if not isinstance(hidden, Tensor) or hidden.dim() != 3 or hidden.shape[1] < 2:
        return None
    found: dict[str, Any] = {}
    for name, value in given.items():
        if not _tensors(value):
            found[name] = value
            continue
        cut = _cut(value, BY_TOKEN.get(name), hidden.shape[1])
        if cut is None:
            return None
        found[name] = cut
    return found


def _cut(value: Any, dims: int | None, tokens: int) -> Any:
    """The last token's part of a tensor, or of a tuple of them; None where it has no such axis."""
    if isinstance(value, tuple):
        parts = tuple(_cut(part, dims, tokens) for part in value)
        return None if any(part is None for part in parts) else parts
    if not isinstance(value, Tensor) or value.dim() != dims:
        return None
    axis = min(1, dims - 1)
    if value.shape[axis] != tokens:
        return None
    # A copy, which waits for the append: kernels of a decode step read keys of earlier tokens
    # before the launches in front of them have ended.
    return value.narrow(axis, tokens - 1, 1).clone(memory_format=torch.contiguous_format)


def _repeated(row: Tensor, rows: int) -> Tensor:
    """A row [B, 1, hidden] in place of all, [B, rows, hidden], for stacks that count them."""
    return row.expand(-1, rows, -1)


def _tensors(value: Any) -> bool:
    """Whether there is a tensor in an argument."""
    if isinstance(value, dict):
        return any(map(_tensors, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_tensors, value))
    return isinstance(value, Tensor)
