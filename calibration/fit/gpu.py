"""This machine's GPU from all that was measured on it: times and overheads for the next plan.

Rows of every calibration on this machine (`kvpareto calibrate`, `kvpareto verify`) are put
together by GPU, fitted (latency.py, fit_memory.py) and written to `<home>/hardware/<gpu>.json`,
which the planner reads (planner/hardware/measured.py).
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...planner.accuracy.calibrations import folders
from ...planner.engines.kvpareto import KVPARETO
from ...planner.errors import BadInput
from ...planner.hardware.gpu_names import candidates, find_gpu
from ...planner.hardware.gpus import Hardware
from ...planner.hardware.measured import forget, path_of
from ...planner.latency.efficiency import shipped
from ..records.profile_files import replace_file
from ..records.record_file import ROWS, read_records
from .engine_runs import RunRow, known_spec, of_records
from .fit_memory import contexts, slacks
from .latency import entry, fit

FEWEST = 6  # timed runs below which times are left as they are
MODELS_OF_ONE = "calibrated on this machine: {runs} runs of {models} model{s}"


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
    found = document(rows, hardware)
    if found is None:
        return None
    path = path_of(hardware.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(found, indent=1) + "\n")
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
    if len(timed) >= FEWEST:
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
