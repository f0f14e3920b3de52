"""A configuration run by our own runtime."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ....planner.formats.configuration import Configuration
from ....planner.models.spec import ModelSpec
from ....planner.workload import Workload
from ....runtime import Session
from ....runtime.cache.kv_cache import check_cache
from ....runtime.generation.decode import decode
from ....runtime.generation.sampling import GREEDY
from ....runtime.loading import dynamic_chunks
from ....runtime.weights.quantize_modules import packed_bytes
from ..loaded_model import OpenModel


def start(
    opened: OpenModel, config: Configuration, workload: Workload, target: int | None
) -> "_Runtime":
    """See engines.start."""
    return _Runtime(opened, config, workload, target)


def check(
    spec: ModelSpec, config: Configuration, workload: Workload, target: int | None, device: str
) -> None:
    """See engines.check."""
    where = torch.device(device)
    check_cache(spec, config, workload, where)
    dynamic_chunks(spec, config, workload, target, where)


class _Runtime:
    """See Machine."""

    def __init__(
        self, opened: OpenModel, config: Configuration, workload: Workload, target: int | None
    ) -> None:
        self.session: Session | None = Session(
            opened.model,
            opened.spec,
            config,
            tokens=workload.tokens,
            batch=workload.batch,
            tokenizer=opened.tokenizer,
            dynamic=dynamic_chunks(opened.spec, config, workload, target, opened.device),
        )

    def prefill(self, ids: Tensor, output: int) -> Tensor:
        return self._open.prefill(ids, output)

    def decode(self, logits: Tensor, output: int) -> Iterator[None]:
        for _ in decode(self._open.forward, logits, output, GREEDY, frozenset()):
            yield

    def weights(self) -> int:
        return packed_bytes(self._open.model)

    def kv(self) -> int:
        return self._open.memory().kv

    def why_eager(self) -> str | None:
        return self._open.why_eager

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None

    @property
    def _open(self) -> Session:
        if self.session is None:
            raise ValueError("the session is closed")
        return self.session
