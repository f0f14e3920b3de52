"""This machine's GPU from all that was measured on it: times and overheads for the next plan.

Rows of every calibration on this machine (`kvpareto calibrate`, `kvpareto verify`) are put
together by GPU, fitted (times by latency.py, memory here) and written to
`<home>/hardware/<gpu>.json`, which the planner reads (planner/hardware/measured.py).

What the GPU's memory holds beside tensors is fitted: tensors' bytes are derived, and
planner/memory/overhead.py says what is left. The context is device memory outside torch's allocator
after a run. Slack is what the allocator reserved beyond the room that tensors and libraries are
derived to need, as a part of what of it comes and goes (all but the weights).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....planner.accuracy.calibrations import folders
from ....planner.engines.kvpareto import KVPARETO
from ....planner.errors import BadInput
from ....planner.hardware.gpu_names import candidates, find_gpu
from ....planner.hardware.gpus import Hardware
from ....planner.hardware.measured import forget, path_of
from ....planner.latency.efficiency import shipped
from ....planner.memory.overhead import workspace
from ....planner.memory.weights import weight_bytes
from ....planner.whole_file import writing
from ...records.profile_files import replace_file
from ...records.record_file import ROWS, read_records
from .engine_runs import RunRow, known_spec, of_records
from .latency import entry, fit

FEWEST_TIMED = 6
"""Timed runs below which times are left as they are."""
FEWEST = 3
"""Runs below which nothing is said of memory."""
COVERED = 0.95
"""Share of the runs that the ends of a term of memory hold."""
LESS_CONTEXT, MORE_CONTEXT, WIDER_SLACK = 0.03, 0.08, 0.02
"""What the ends are put further out by: parts of the context, which grows in a process with every
format that it compiles, 802 to 869 MB over a hundred runs; parts of what comes and goes."""
MODELS_OF_ONE = "calibrated on this machine: {runs} runs of {models} model{s}"

Ends = tuple[float, float, float]
"""Expected, low, high."""


def refit(gpu: str | None, notice: Callable[[str], None]) -> Path | None:
    """Fit all rows of this GPU and write them; the file, or None where there is nothing to say.

    `gpu` is the name that torch gives it; None is no GPU. A GPU that the planner does not know has
    no datasheet to be a part of: `notice` is told.
    """
    if gpu is None:
        return None
    try:
        hardware = find_gpu(gpu, _memory())
    except BadInput:
        notice(f"{gpu} is not among the known GPUs: its times are kept, not fitted")
        return None
    rows = [row for row in rows_here() if _is(row, hardware)]
    fitted = document(rows, hardware)
    if fitted is None:
        return None
    path = path_of(hardware.name)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(fitted, indent=1) + "\n")
    forget()
    return path


def rows_here() -> Iterator[RunRow]:
    """Runs of all calibrations on this machine whose model can be described."""
    for folder in folders():
        records = read_records(folder / ROWS)
        spec = known_spec(records[-1]) if records else None
        if spec is not None:
            yield from of_records(records, spec)


def document(rows: list[RunRow], hardware: Hardware) -> dict[str, Any] | None:
    """What planner/hardware/measured.py reads; None where the rows say nothing."""
    timed = [row for row in rows if row.ttft_s is not None and row.tpot_s is not None]
    models = len({row.model for row in timed})
    kind = MODELS_OF_ONE.format(runs=len(timed), models=models, s="" if models == 1 else "s")
    engines = {}
    if len(timed) >= FEWEST_TIMED:
        fitted = fit(timed, hardware, shipped(KVPARETO))
        engines[KVPARETO.name] = entry(fitted, timed, kind)
    measured = {"context": contexts(rows), "slack": slacks(rows)}
    memory = {name: ends for name, ends in measured.items() if ends is not None}
    if not engines and not memory:
        return None
    return {
        "schema": 1,
        "gpu": hardware.name,
        "runs": len(rows),
        "engines": engines,
        "memory": memory,
    }


def _is(row: RunRow, hardware: Hardware) -> bool:
    return any(gpu.name == hardware.name for gpu in candidates(row.gpu))


def _memory() -> int | None:
    """Bytes of this machine's GPU, which tell cards of one name apart."""
    import torch

    return torch.cuda.get_device_properties().total_memory if torch.cuda.is_available() else None


def contexts(rows: Sequence[RunRow]) -> Ends | None:
    """Bytes of the context: median, and where COVERED of the runs lie, a little widened."""
    measured = [float(row.context_bytes) for row in rows if row.context_bytes is not None]
    if len(measured) < FEWEST:
        return None
    low, middle, high = _quantiles(measured)
    return middle, low * (1 - LESS_CONTEXT), high * (1 + MORE_CONTEXT)


def slacks(rows: Sequence[RunRow]) -> Ends | None:
    """The allocator's slack in parts of what comes and goes, in the same way."""
    measured = [part for row in rows if (part := slack_of(row)) is not None]
    if len(measured) < FEWEST:
        return None
    low, middle, high = _quantiles(measured)
    return middle, max(0.0, low - WIDER_SLACK), high + WIDER_SLACK


def slack_of(row: RunRow) -> float | None:
    """One run's slack; None where it was not measured."""
    if row.reserved_peak is None:
        return None
    weights = weight_bytes(row.spec, row.config.weight_bits).total
    room = KVPARETO.activation(row.spec, row.config, row.workload).room
    moving = room + workspace(row.spec, candidates(row.gpu)[0])
    return (row.reserved_peak - weights) / moving - 1


def _quantiles(values: Sequence[float]) -> Ends:
    outside = (1 - COVERED) / 2
    low, middle, high = np.quantile(values, [outside, 0.5, 1 - outside])
    return float(low), float(middle), float(high)
