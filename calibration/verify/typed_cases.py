"""Cases that were typed: each budget with each context, a configuration or the recommended one.

    -m MODEL --config CONFIG --budget 12GB          this configuration
    -m MODEL --budget 8GB,12GB --context 8k,32k     what is recommended for each of the four

A pair for which nothing is recommended is no failed verification: it is named, with the reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...planner.engines import find_engine
from ...planner.errors import NothingFits
from ...planner.formats.configuration import Configuration
from ...planner.hardware.gpus import Hardware
from ...planner.load_model import load_model
from ...planner.models.protected import check_layers
from ...planner.search.request import Request
from ...planner.units import split_bytes, split_tokens
from ...planner.workload import Workload
from ...report.document_parts import point
from ...report.saved_plan import Planned
from ..execution.device import as_loaded
from ..recommended import recommend_on
from .cases import VerificationCase, planned_of, predict


@dataclass(frozen=True)
class Unplanned:
    """A budget and a context for which the planner finds nothing, and why."""

    budget: int
    context: int
    error: NothingFits


def typed_cases(
    model: str, config: str | None, budgets: str, contexts: str | None,
    output: str | None, batch: str,
    engine: str, hardware: Hardware | None, offline: bool, device: str,
) -> tuple[list[VerificationCase], list[Unplanned]]:  # fmt: skip
    """The questions, contexts one after the other, and what cannot be asked. Predictions are made
    now, for `hardware` if it is known, in the dtype that `device` loads the model in. Raises
    BadInput."""
    chosen = Configuration.parse(config) if config is not None else None
    requests = list(
        _requests(model, chosen, budgets, contexts, output, batch, engine, offline, device)
    )
    questions: list[VerificationCase] = []
    unplanned: list[Unplanned] = []
    for request in requests:
        try:
            planned = _planned(request, chosen, hardware, device)
        except NothingFits as error:
            unplanned.append(Unplanned(request.budget, request.workload.context, error))
            continue
        gpu = hardware.name if hardware is not None else None
        config_of_plan = Configuration.parse(planned.config)
        questions.append(VerificationCase(model, request, config_of_plan, planned, gpu))
    return questions, unplanned


def _requests(
    model: str, config: Configuration | None, budgets: str, contexts: str | None,
    output: str | None,
    batch: str, engine: str, offline: bool, device: str,
) -> Iterator[Request]:  # fmt: skip
    kind = find_engine(engine)
    sizes = split_bytes(budgets)
    spec = as_loaded(load_model(model, offline=offline), device)
    if config is not None:
        check_layers(config, spec)
    for context in [None] if contexts is None else split_tokens(contexts):
        workload = Workload.parse(context, output, batch, spec.max_context)
        for size in sizes:
            yield Request(spec, workload, kind, size)


def _planned(
    request: Request, config: Configuration | None, hardware: Hardware | None, device: str
) -> Planned:
    """What is promised of `config`, or of what is recommended. Raises NothingFits."""
    if config is not None:
        return predict(request, config, hardware)
    request = replace(request, hardware=hardware)
    best = recommend_on(request, device).recommended
    return planned_of(point(best.config, best.memory, best.accuracy, best.latency))
