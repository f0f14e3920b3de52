"""One configuration from words to its document: `kvpareto estimate --json`."""

from typing import Any, Unpack

from ..planner.accuracy import predict as accuracy
from ..planner.engines import find_engine
from ..planner.formats.configuration import Configuration
from ..planner.latency import predict as latency
from ..planner.memory import estimate as memory
from ..planner.models.protected import check_layers
from ..planner.search.request import check_workload
from ..planner.typed_request import (
    EstimateWords,
    typed_gpus,
    typed_parallel,
    typed_task,
    typed_workload,
)
from .document import estimate_document, placed_document


def estimated(model: str, config: str, **words: Unpack[EstimateWords]) -> dict[str, Any]:
    """Memory, accuracy and, where a GPU is named, speed. Raises BadInput."""
    chosen, engine = Configuration.parse(config), find_engine(words.get("engine", "kvpareto"))
    gpus = typed_gpus(words.get("gpu"), engine)
    hardware = gpus[0] if gpus else None
    spec, workload = typed_workload(model, hardware, words)
    check_workload(workload, engine)
    check_layers(chosen, spec)
    parallel = typed_parallel(words.get("parallel"), engine)
    task = typed_task(words.get("task"))
    if engine.places:
        from ..planner.search.placed.table import placed_anyway

        point = placed_anyway(spec, chosen, workload, engine, gpus, task, parallel)
        return placed_document(spec, engine, point)
    run = engine.dequantized(spec)
    return estimate_document(
        spec,
        chosen,
        engine,
        workload,
        memory.estimate(spec, chosen, workload, engine, hardware),
        accuracy.predict(run, chosen, workload.context, task=task),
        latency.predict(run, chosen, workload, engine, hardware) if hardware is not None else None,
        hardware,
    )
