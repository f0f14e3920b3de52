"""Latency coefficients of the kvpareto engine from whole runs of one GPU.

    python -m kvpareto.calibration.fit.hardware.latency          what an H200's shipped rows say
    python -m kvpareto.calibration.fit.hardware.latency --write  profiles/hardware/latency.json anew

The roofline of planner/latency/roofline.py is fitted as it stands: least squares on log(predicted /
measured) of TTFT and TPOT, with a loss that lets outliers go, over the logarithms of the
coefficients, each held near the shipped one as a Gaussian prior would. Few rows move what they
speak of and leave the rest. What is left out in turn (each model; where there is one model, folds)
gives the error that is reported and the ends of the interval, class by class
(evidence/left_out_errors.py).
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....planner.engines.kvpareto import KVPARETO
from ....planner.hardware.gpu_names import find_gpu
from ....planner.hardware.gpus import Hardware
from ....planner.latency.efficiency import Coefficients, before_runs
from ....planner.latency.job import ConfigurationAxes, LatencyJob, job_of, some_of, stack
from ....planner.latency.model_class import class_of
from ....planner.latency.roofline import seconds
from ....planner.libraries import importing
from ....planner.memory.kv_cache import kv_bytes
from ...evidence.left_out_errors import LeftOutErrors, class_table
from .engine_runs import RunRow, shipped_runs

Floats = npt.NDArray[np.float64]

RATES = (
    "matmul", "matmul_eight", "grouped", "grouped_packed", "stream", "attention",
    "attention_packed", "attention_eight", "attention_tiled", "tiled_packed", "weights_16",
    "weights_8", "weights_4", "sweep", "streamed", "parts_rows", "wide", "wide_rows",
    "tiles", "tiles_8",
    "few_rows", "overlap", "experts_16", "packed_8", "packed_4", "packed_2", "packed_channels",
    "conflicts",
)  # fmt: skip
HOST = (
    "launch_prefill", "launch_packed", "recurrent_call", "launch_piece", "launch_segment",
    "launch_latent", "host_step", "step",
)  # fmt: skip
COSTS = (
    *HOST, "matmul_rows", "softmax", "fill_rows", "dequantize_bytes", "staging_moves", "card_layer",
    "card_launch", "card_segment", "latent_tile", "latent_packed", "latent_split",
    "tail_layer", "turn_layer", "early", "card_routed", "card_copy", "routed_moves", "merge",
    "round", "ready", "matmul_inputs", "parts_unpacked",
    "row_input", "score",
)  # fmt: skip
"""What is fitted; a rate is at most the datasheet's, or that of what it is a part of."""
PRIOR = 0.7
"""Standard deviation of a coefficient's logarithm before any row is seen."""
FROM_KERNELS = {
    "stream": 0.04, "matmul": 0.15, "attention_packed": 0.10, "attention_eight": 0.10,
    "matmul_eight": 0.15,
    "conflicts": 0.20, "packed_8": 0.10, "packed_4": 0.10, "packed_2": 0.15,
    "weights_16": 0.15, "weights_8": 0.15, "weights_4": 0.15,
    "streamed": 0.10, "wide": 0.20, "wide_rows": 0.15, "sweep": 0.30, "tiles": 0.30,
    "tiles_8": 0.30, "parts_rows": 0.10, "parts_unpacked": 0.10, "row_input": 0.10, "merge": 0.15,
    "matmul_inputs": 0.15,
    "softmax": 0.40, "few_rows": 0.15, "overlap": 0.10, "grouped_packed": 0.01, "grouped": 0.05,
    "routed_moves": 0.10, "latent_tile": 0.10, "latent_packed": 0.20, "latent_split": 0.20,
    "fill_rows": 0.30,
    "matmul_rows": 0.40, "dequantize_bytes": 0.30, "staging_moves": 0.30, "attention_tiled": 0.15,
    "tiled_packed": 0.15,
}  # fmt: skip
"""The same of what kernels were timed for, on the GPU where they were. The general kernel
(`tiled`): eight runs of Phi-3.5 from when its window took that kernel."""
NOISE = 0.04
"""The same of a row's seconds, repeated: TTFT and TPOT alike."""
STEP = float(np.finfo(np.float64).eps) ** 0.5
"""Of a coefficient's logarithm, by which its slope is taken."""
FOLDS = 5
ALIKE = {
    "granite-4.0-micro": "granite-4.0-micro-like",
    "gpt-oss-20b": "gpt-oss-20b-16bit",
    "qwen3-30b-a3b": "Qwen/Qwen3-30B-A3B-Instruct-2507",
}
"""Models of one shape, cut or not, that are left out together."""


@dataclass(frozen=True, eq=False)
class LatencyFit:
    """Coefficients, and what they were worth on rows they had not seen."""

    coefficients: Coefficients
    held_out: LeftOutErrors
    by: str
    """What was left out at a time."""


class _Rows:
    """Rows as one job, with the logarithms of what was measured [rows, 2]."""

    def __init__(self, job: LatencyJob, measured: Floats, hardware: Hardware) -> None:
        self.job, self.measured, self.hardware = job, measured, hardware

    @classmethod
    def of(cls, rows: Sequence[RunRow], hardware: Hardware) -> "_Rows":
        times = [[row.ttft_s or np.nan, row.tpot_s or np.nan] for row in rows]
        measured: Floats = np.log(np.array(times, dtype=np.float64))
        return cls(stack([described(row) for row in rows]), measured, hardware)

    def some(self, which: Sequence[int]) -> "_Rows":
        return _Rows(some_of(self.job, which), self.measured[list(which)], self.hardware)

    def errors(self, coefficients: Coefficients, sets: int = 1) -> Floats:
        """log(measured / predicted), [sets * rows, 2]; of several sets at once, each coefficient is
        one number or an array [sets, 1, 1, 1, 1]."""
        predicted = seconds(self.job, self.hardware, coefficients)
        columns = [
            np.broadcast_to(x, (sets, 1, len(self.measured), 1, 1)).reshape(sets, -1)
            for x in (predicted.ttft, predicted.tpot)
        ]
        errors: Floats = self.measured - np.log(np.stack(columns, axis=-1))
        return errors.reshape(-1, 2)


def described(row: RunRow) -> LatencyJob:
    """A run as the roofline takes it, without what the engine did not have then."""
    size = kv_bytes(row.spec, row.config, row.workload, KVPARETO).total
    job = job_of(row.spec, row.workload, ConfigurationAxes.of(row.config, size))
    then: dict[str, Any] = {**row.engine_parts, "chooses_tokens": float(row.chosen)}
    return replace(job, **then)


def fit(
    rows: Sequence[RunRow],
    hardware: Hardware,
    start: Coefficients,
    priors: Mapping[str, float] | None = None,
    by: str | None = None,
    whole_classes: bool = False,
) -> LatencyFit:
    """Fit all rows; then what each part of them says of the others.

    `start` are the coefficients before any row, `priors` how sure some of them are (PRIOR where
    not given). `by`: what is left out at a time, "model" or "run" (in FOLDS); models where there
    are more than two. Raises MissingDependency without scipy.
    """
    if not rows:
        raise ValueError("nothing to fit")
    priors = priors or {}
    every = _Rows.of(rows, hardware)
    full = _solve(every, start, priors)
    models = [ALIKE.get(row.model, row.model) for row in rows]
    classes = tuple(class_of(row.spec) for row in rows)
    by = by or ("model" if len(set(models)) > 2 else "run")
    out = models if by == "model" else [str(i % FOLDS) for i in range(len(rows))]

    def without(groups: Sequence[str]) -> Floats:
        errors = np.full((len(rows), 2), np.nan)
        for group in sorted(set(groups)):
            gone = [i for i, g in enumerate(groups) if g == group]
            rest = [i for i, g in enumerate(groups) if g != group]
            # A single run has nothing beside it: it is held against the start.
            kept = _solve(every.some(rest), start, priors, full) if rest else start
            errors[gone] = every.some(gone).errors(kept)
        return errors

    unseen = without(classes) if whole_classes and len(set(classes)) > 1 else None
    return LatencyFit(full, LeftOutErrors(without(out), tuple(models), classes, unseen), by)


def _solve(
    rows: _Rows,
    start: Coefficients,
    priors: Mapping[str, float],
    near: Coefficients | None = None,
) -> Coefficients:
    """The coefficients of these rows; looked for `near` some, where a solution is known."""
    with importing("fitting times", "calibrate"):
        from scipy.optimize import least_squares
    names = [name for name in (*RATES, *COSTS) if getattr(start, name) > 0]
    origin = np.log([getattr(start, name) for name in names])
    highest = np.array([0.0 if name in RATES else np.inf for name in names])
    spread = np.array([priors.get(name, PRIOR) for name in names])
    counted = np.isfinite(rows.measured)

    def robust(coefficients: Coefficients, sets: int = 1) -> Floats:
        errors = rows.errors(coefficients, sets).reshape(sets, -1, 2)[:, counted] / NOISE
        # sqrt of the pseudo-Huber loss: quadratic to three times the noise, linear beyond
        return np.sign(errors) * 3 * np.sqrt(2 * (np.sqrt(1 + (errors / 3) ** 2) - 1))

    def residuals(theta: Floats) -> Floats:
        return np.concatenate([robust(_with(start, names, theta))[0], (theta - origin) / spread])

    def slopes(theta: Floats) -> Floats:
        """By differences, all coefficients' at once: downwards, where nothing bounds them."""
        step = STEP * np.maximum(1.0, np.abs(theta))
        moved = theta[:, None] - np.diag(step)  # a row a coefficient, a column a set
        every = {
            name: np.exp(values).reshape(-1, 1, 1, 1, 1)
            for name, values in zip(names, moved, strict=True)
        }
        here = robust(_with(start, names, theta))
        there = robust(replace(start, **every), len(names))
        return np.vstack([((here - there) / step[:, None]).T, np.diag(1 / spread)])

    if near is not None:
        begins = [np.log([getattr(near, name) for name in names])]
    else:
        # Whichever is longer hides the other of host and card, so that a start has to see both.
        host = np.array([name in HOST for name in names])
        begins = [origin + shift * host for shift in (-0.7, 0.7)]
    tries = [
        least_squares(
            residuals, np.minimum(begin, highest - 1e-6), slopes, bounds=(-np.inf, highest),
            x_scale=spread, max_nfev=60, ftol=1e-5,
        )
        for begin in begins
    ]  # fmt: skip
    return _with(start, names, min(tries, key=lambda solution: solution.cost).x)


def _with(start: Coefficients, names: Sequence[str], theta: Floats) -> Coefficients:
    values: dict[str, Any] = dict(zip(names, np.exp(theta).tolist(), strict=True))
    return replace(start, **values)


def entry(fitted: LatencyFit, rows: Sequence[RunRow], kind: str) -> dict[str, Any]:
    """An engine's entry for the GPU of the rows, as planner/latency/interval.py reads it."""
    values = {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in asdict(fitted.coefficients).items()
    }
    return {
        "there": {"kind": kind} | fitted.held_out.trust(),
        "held_out": {
            "rows": len(rows),
            "by": fitted.by,
            "ttft_median": round(fitted.held_out.median(0), 4),
            "tpot_median": round(fitted.held_out.median(1), 4),
        },
        "coefficients": values,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="kvpareto.calibration.fit.hardware.latency")
    parser.add_argument("--write", action="store_true", help="replace the shipped coefficients")
    options = parser.parse_args(arguments)
    rows = shipped_runs()
    fitted = fit(rows, find_gpu("H200"), before_runs(KVPARETO), FROM_KERNELS, whole_classes=True)
    folds = fit(rows, find_gpu("H200"), before_runs(KVPARETO), FROM_KERNELS, by="run")
    models = len({row.model for row in rows})
    fields = entry(fitted, rows, f"fitted on {len(rows)} runs of {models} models on an H200")
    print(json.dumps(fields, indent=1))
    ttft, tpot = (folds.held_out.median(which) for which in (0, 1))
    print(class_table(fitted.held_out))
    print(f"runs left out in {FOLDS} folds: TTFT {ttft:.1%}, TPOT {tpot:.1%} at the median")
    if options.write:
        path = Path(__file__).parents[3] / "profiles" / "hardware" / "latency.json"
        whole = json.loads(path.read_text(encoding="utf-8"))
        whole["engines"][KVPARETO.name] |= fields
        path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
