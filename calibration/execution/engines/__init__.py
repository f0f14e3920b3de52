"""The engines that a configuration is run on: one module each, named as its folder in
planner/engines/. They import torch, so that the planner's folders cannot hold them.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol

from torch import Tensor

from ....planner.engine import Engine
from ....planner.formats.configuration import Configuration
from ....planner.models.spec import ModelSpec
from ....planner.workload import Workload
from ....runtime import Session
from ..loaded_model import OpenModel


class ReadyRun(Protocol):
    """A configuration ready to run. Each call may run out of memory: NothingFits says on what,
    torch.OutOfMemoryError does not."""

    session: Session | None
    """The runtime's, where that is what runs."""

    def prefill(self, ids: Tensor, output: int) -> Tensor:
        """Run [B, T] prompt tokens into the emptied cache; the last token's logits [B, V]."""

    def decode(self, logits: Tensor, output: int) -> Iterator[None]:
        """Choose `output` tokens, greedily; one step a token, which is on the host then."""

    def weights(self) -> int:
        """Bytes of the weights as stored: not RoPE's frequencies, nor scratch."""

    def kv(self) -> int:
        """Bytes of the cache's tensors."""

    def why_eager(self) -> str | None:
        """Why passes run without CUDA graphs; None where they are captured."""

    def close(self) -> None:
        """Free the cache and whatever else the machine took."""


def start(
    opened: OpenModel, config: Configuration, workload: Workload, engine: Engine, target: int | None
) -> ReadyRun:
    """A machine for `config`. `target` is the total that dynamic chunks stay within.

    Raises BadInput for what the engine does not run, NothingFits where the cache does not fit.
    """
    machine: ReadyRun = _module(engine).start(opened, config, workload, target)
    return machine


def check(
    spec: ModelSpec, config: Configuration, workload: Workload, engine: Engine,
    target: int | None, device: str,
) -> None:  # fmt: skip
    """Raise BadInput as `start` would, before a weight is read."""
    _module(engine).check(spec, config, workload, target, device)


def _module(engine: Engine) -> Any:
    return import_module(f".{engine.name.replace('-', '_')}", __package__)
