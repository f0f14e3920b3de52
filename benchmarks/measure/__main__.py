"""Measure whole runs on one GPU, what the planner says beside them: one command, three designs.

    python -m benchmarks.measure runs runs.jsonl --seconds 300
    python -m benchmarks.measure verify verify.jsonl --seconds 330
    python -m benchmarks.measure paper --plan-only         what is run, with predicted seconds
    python -m benchmarks.measure verify verify.jsonl --summary

Random weights at real shapes. A model is built once for neighbouring runs of the same weight bits.
Every run is `calibration.execution`'s: a short prompt first, which compiles and captures, then one
prefill and some decode steps that count. Rows are appended with fsync as they are measured, with
their environment; failures are rows too. A file that is there is gone on with. Correctness is not
measured here.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, cast

from kvpareto.calibration.execution.memory_cap import prefer_expandable_segments
from kvpareto.report.progress import Progress, progress

from . import design_paper, design_runs, design_verify
from .kernels import compile_ahead
from .planned_run import PlannedRun
from .real_shapes import architecture, sources
from .row_file import RowFile, read

BUILD_S = 2.5  # a guess: building a model
RESTARTS = "KVPARETO_MEASURE_RESTARTED"
MOST_RESTARTS = 3  # after errors that leave the device useless to the process


class Design(Protocol):
    """What a design's module answers."""

    def runs(self, options: argparse.Namespace) -> list[PlannedRun]:
        """All its runs, in their order."""

    def key_of(self, row: dict[str, Any]) -> tuple[Any, ...]:
        """The key of a row's run."""

    def line(self, row: dict[str, Any]) -> str:
        """A row in one line."""

    def summary(self, rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> Iterable[str]:
        """What the rows say, in lines."""


DESIGNS = {
    "runs": cast(Design, design_runs),
    "verify": cast(Design, design_verify),
    "paper": cast(Design, design_paper),
}


class UselessDevice(Exception):
    """The device takes no more calls from this process."""


def measure(
    planned: Sequence[PlannedRun], design: Design, rows: RowFile, options: argparse.Namespace
) -> None:
    """Make the runs that `rows` lacks, as far as the seconds go. Raises UselessDevice."""
    from kvpareto.calibration.execution.loaded_model import open_model

    began = time.monotonic()

    def left() -> float:
        return float(options.seconds - (time.monotonic() - began))

    wanted = [run for run in planned if run.key not in rows.done]
    for run in wanted:
        if run.config is None:
            said = {"key": run.key, "model": run.model, "outcome": "nothing fits"}
            rows.append({**said, **run.fields})
    wanted = [run for run in wanted if run.config is not None]
    with sources(run.model for run in wanted) as source, progress(len(wanted)) as shown:
        if options.device == "cuda":
            compile_ahead(wanted)
            shown.say(f"kernels compiled: {time.monotonic() - began:.1f} s")
        for (model, bits), group in groupby(wanted, key=lambda run: run.weights):
            if left() < BUILD_S:
                break
            describe(model, rows)
            try:
                with open_model(
                    source[model], bits, device=options.device, random_weights=True, offline=True
                ) as opened:
                    shown.say(f"{model} w{bits}: built in {opened.seconds:.1f} s")
                    for run in group:
                        if run.seconds < left():
                            run_one(opened, run, design, rows, options.commit, shown)
                        shown.advance()
            except UselessDevice:
                raise
            except Exception as error:
                shown.say(f"{model} w{bits} cannot be run: {error!r:.300}")
        shown.say(f"{len(rows.done)} rows in {time.monotonic() - began:.0f} s")


def describe(model: str, rows: RowFile) -> None:
    """The config of a model that is not run as it is bundled goes before its rows."""
    config = architecture(model)
    if config is not None and not any(
        "architecture" in row and row["model"] == model for row in rows.rows
    ):
        rows.append({"key": (model, None, None, None), "model": model, "architecture": config})


def run_one(
    opened: Any,
    run: PlannedRun,
    design: Design,
    rows: RowFile,
    commit: str | None,
    shown: Progress,
) -> None:
    """One measured row. Raises UselessDevice where it took the process's device with it."""
    from kvpareto.calibration.execution.run import execute
    from kvpareto.calibration.execution.run_record import Warmup

    assert run.config is not None
    began = time.monotonic()
    row: dict[str, Any] = {"key": run.key, "model": run.model, **run.fields}
    try:
        execution = execute(
            opened,
            run.config,
            run.workload,
            engine=run.engine,
            budget=run.budget,
            warmup=Warmup.SHORT,
        )
    except RuntimeError as error:  # outside of what a run's outcome covers
        rows.append(row | {"outcome": "crashed", "reason": f"{error!r:.200}"})
        raise UselessDevice from error
    row |= {
        "execution": execution.model_dump(mode="json", by_alias=True, exclude_none=True),
        "outcome": execution.outcome,
        "reason": execution.reason,
    }
    row["execution"]["environment"] |= {} if commit is None else {"commit": commit}
    rows.append(row)
    shown.say(f"  {design.line(row)}; {time.monotonic() - began:.1f} s")
    if execution.outcome == "crashed" and "CUDA error" in (execution.reason or ""):
        raise UselessDevice


def shown_plan(planned: Sequence[PlannedRun]) -> Iterator[str]:
    """Every run in its order with the seconds gone after it, then those that nothing fits."""
    seconds = 0.0
    runs = [run for run in planned if run.config is not None]
    for _, group in groupby(runs, key=lambda run: run.weights):
        seconds += BUILD_S
        for run in group:
            seconds += run.seconds
            shape = f"{run.workload.context} x{run.workload.batch}"
            yield f"{seconds:6.0f} s  {run.model} {run.engine.name} {run.config} {shape}"
    yield f"{len(runs)} runs, about {seconds:.0f} s"
    for run in planned:
        if run.config is None:
            yield f"no plan for {' '.join(map(str, run.key))}: {run.fields['reason']}"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("design", choices=DESIGNS)
    made.add_argument("output", type=Path, nargs="?", help="rows are appended to this file")
    made.add_argument("--seconds", type=float, default=1e9, help="start no run after this long")
    made.add_argument("--only", default="", help="models whose name contains this")
    made.add_argument("--device", default="cuda")
    made.add_argument("--gpu", default="H200", help="what is planned for")
    made.add_argument("--commit", help="what is run, where git cannot say")
    made.add_argument("--plan-only", action="store_true", help="print what would be run")
    made.add_argument("--summary", action="store_true", help="of the rows that are there")
    made.add_argument("--plans", type=Path, help="verify: --plan-only writes it, a run reads it")
    made.add_argument("--again", action="store_true", help="verify: with today's predictions")
    return made


def main() -> None:
    options = parser().parse_args()
    design = DESIGNS[options.design]
    options.plan_only |= options.output is None
    if options.summary and options.output is not None:
        print("\n".join(design.summary(runs_in(read(options.output)), options)))
        return
    began = time.monotonic()
    planned = design.runs(options)
    if options.plan_only:
        print("\n".join(shown_plan(planned)))
        return
    prefer_expandable_segments()
    rows = RowFile(options.output, design.key_of)
    try:
        measure(planned, design, rows, options)
    except UselessDevice:
        restarted = int(os.environ.get(RESTARTS, "0"))
        if restarted >= MOST_RESTARTS:
            sys.exit("the device fails again and again")
        os.environ[RESTARTS] = str(restarted + 1)
        left = max(options.seconds - (time.monotonic() - began), 0.0)
        command = ["-m", "benchmarks.measure", *sys.argv[1:], "--seconds", str(left)]
        os.execv(sys.executable, [sys.executable, *command])  # the last --seconds counts
    print("\n".join(design.summary(runs_in(rows.rows), options)))


def runs_in(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of runs, without those that describe a model."""
    return [row for row in rows if "architecture" not in row]


if __name__ == "__main__":
    main()
