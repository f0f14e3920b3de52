"""What would end a verification for want of something that is known before weights are read."""

from collections.abc import Sequence

import torch

from ...planner.engines.kvpareto import KVPARETO
from ...runtime.load_weights import WeightsAhead, before_weights
from ..execution import engines
from ..execution.memory_cap import numbered
from ..tasks.base import Task
from ..tasks.fits_context import check_fits
from .cases import VerificationCase
from .verifier import VerifySettings


def check_cases(
    cases: Sequence[VerificationCase], settings: VerifySettings, named: Sequence[Task]
) -> None:
    """Raise BadInput for a model, a configuration or, of those asked for by name, a task that will
    not run."""
    read: dict[int, WeightsAhead] = {}
    for case in cases:
        engine, bits = case.request.engine, case.config.weight_bits
        if bits not in read:
            read[bits] = before_weights(
                case.source, bits, numbered(settings.device),
                dtype=getattr(torch, case.spec.dtype), random_weights=settings.random_weights,
                offline=settings.offline, trust_remote_code=settings.trust_remote_code,
                packed_cache=engine is KVPARETO,
            )  # fmt: skip
        ahead, work = read[bits], case.request.workload
        engines.check(ahead.spec, case.config, work, engine, case.request.budget, settings.device)
        if engine is KVPARETO:
            check_fits(ahead.spec.name, ahead.tokenizer, named, work.context)
