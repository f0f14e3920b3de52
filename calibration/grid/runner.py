"""Hundreds of runs through one GPU: workers, a clock, and rows on disk as they come.

The unquantized model comes first, on all variants at every context; what it is able of is what the
rest is scored on. Then the configurations in the grid's order, each at every context. When the time
is up the workers are ended; the rows are there, and another call goes on behind them.
"""

import json
import multiprocessing
import os
import queue
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..records.environment import environment
from .design import WEIGHTS, grid
from .reading import FULL, encode_items
from .variants import VARIANTS, chosen, mean_score
from .worker import Answer, Job, LoadedModels, work

MOST_RESTARTS = 40
PATIENCE = 180.0
"""Seconds without an answer after which what is left is given up: a worker died with it."""


@dataclass(frozen=True)
class GridPlan:
    """What is measured, by whom, for how long. `seconds` None: until the grid is done."""

    models: tuple[str, ...]
    out: Path
    contexts: tuple[int, ...]
    configurations: int
    workers: int
    seconds: float | None
    seed: int
    device: str
    items: int
    weights: tuple[int, ...] = WEIGHTS
    chosen: tuple[str, ...] = ()
    """These configurations alone, where there are any."""


class JobRunner:
    """Gives out jobs and keeps what comes back."""

    def __init__(self, plan: GridPlan) -> None:
        self.plan = plan
        self._begun = time.monotonic()
        self._done = {(r["model"], r["config"], r["context"]): r for r in read_lines(plan.out)}
        self._context = multiprocessing.get_context("spawn")
        self._jobs: Any = self._context.Queue()
        self._answers: Any = self._context.Queue()
        self._workers: list[Any] = []
        self._restarts = 0
        self._headed = False
        self._whole: dict[tuple[str, int], list[Answer]] = {}
        """Answers of the unquantized model, one for each variant."""

    def run(self) -> int:
        """All rows that time allows; how many were added."""
        before = len(self._done)
        _end_torn_line(self.plan.out)
        self.plan.out.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory() as folder,
            self.plan.out.open("a", encoding="utf-8") as file,
        ):
            self._file, self._folder = file, folder
            try:
                self._start()
                self._through(self._ability_jobs(), self._collect)
                for (model, context), answers in self._whole.items():
                    self._write(Job(model, FULL, context, ()), _merged(answers))
                self._through(self._grid_jobs(), self._write)
            finally:
                for worker in self._workers:
                    worker.kill()
                self._jobs.cancel_join_thread()  # nobody is left to read what is still in it
        return len(self._done) - before

    def _ability_jobs(self) -> list[Job]:
        """The unquantized model on every variant, where it was not run: the longest first."""
        return [
            Job(model, FULL, context, (variant,))
            for context in sorted(self.plan.contexts, reverse=True)
            for variant in VARIANTS
            for model in self.plan.models
            if (_name(model), FULL, context) not in self._done
        ]

    def _grid_jobs(self) -> list[Job]:
        jobs = []
        plan = self.plan
        drawn = plan.chosen or map(
            str, grid(plan.configurations, weights=plan.weights, seed=plan.seed)
        )
        for config in drawn:
            for model in self.plan.models:
                for context in self.plan.contexts:
                    row = self._done.get((_name(model), FULL, context))
                    key = _name(model), config, context
                    if row is not None and "tasks" in row and key not in self._done:
                        scores = {name: task["score"] for name, task in row["tasks"].items()}
                        jobs.append(Job(model, config, context, tuple(chosen(scores))))
        return jobs

    def _start(self) -> None:
        while len(self._workers) < self.plan.workers:
            worker = self._context.Process(
                target=_work,
                args=(
                    self._folder,
                    self.plan.device,
                    self.plan.seed,
                    self.plan.items,
                    self._jobs,
                    self._answers,
                ),
                daemon=True,
            )
            worker.start()
            self._workers.append(worker)

    def _collect(self, job: Job, answer: Answer) -> None:
        self._whole.setdefault((job.model, job.context), []).append(answer)

    def _through(self, jobs: Sequence[Job], keep: Callable[[Job, Answer], None]) -> None:
        """Give out jobs and keep their answers, until all are answered or time is up."""
        for job in jobs:
            self._jobs.put(job)
        left, said = len(jobs), time.monotonic()
        heard = said
        while left and not self._is_over():
            try:
                job, answer = self._answers.get(timeout=1.0)
            except queue.Empty:
                if not self._mend() or time.monotonic() - heard > PATIENCE:
                    return
                continue
            heard = time.monotonic()
            keep(job, answer)
            left -= 1
            if time.monotonic() - said > 10:
                said = time.monotonic()
                print(f"{self._seconds():5.0f} s  {left} runs left, last {job.config}", flush=True)

    def _mend(self) -> bool:
        """Replace workers that ended; False where they end too often."""
        alive = [worker for worker in self._workers if worker.is_alive()]
        self._restarts += len(self._workers) - len(alive)
        self._workers = alive
        if self._restarts > MOST_RESTARTS:
            print(f"{self._restarts} workers ended: something is broken", flush=True)
            return False
        self._start()
        return True

    def _write(self, job: Job, answer: Answer) -> None:
        row = {"model": _name(job.model), "config": job.config, "context": job.context}
        if "error" in answer:
            print(f"{job.model} {job.config} at {job.context}: {answer['error']}", flush=True)
            row["error"] = answer["error"]
        else:
            row["seconds"] = answer["seconds"]
            if job.config == FULL:
                scores = {n: mean_score(r, VARIANTS[n]) for n, r in answer["right"].items() if r}
                print(row["model"], job.context, {n: round(x, 3) for n, x in scores.items()})
            row["tasks"] = {
                name: {
                    "score": round(mean_score(right, VARIANTS[name]), 5),
                    "items": encode_items(right),
                }
                for name, right in answer["right"].items()
                if right
            }
        row["seed"] = self.plan.seed
        if not self._headed:
            header = {"environment": environment(self.plan.device).model_dump()}
            self._file.write(json.dumps(header) + "\n")
            self._headed = True
        self._file.write(json.dumps(row, separators=(",", ":")) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._done[row["model"], row["config"], row["context"]] = row

    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _is_over(self) -> bool:
        return self.plan.seconds is not None and self._seconds() > self.plan.seconds


def _work(folder: str, device: str, seed: int, items: int, jobs: Any, answers: Any) -> None:
    work(LoadedModels(Path(folder), device, seed, items), jobs, answers.put)


def _merged(answers: Sequence[Answer]) -> Answer:
    """One answer of several for different variants; an error where there is nothing else."""
    right = {k: v for answer in answers for k, v in answer.get("right", {}).items() if v}
    if not right:
        return next((a for a in answers if "error" in a), {"error": "no task fits"})
    return {"right": right, "seconds": round(sum(a.get("seconds", 0.0) for a in answers), 3)}


def _name(model: str) -> str:
    return Path(model).name


def _end_torn_line(path: Path) -> None:
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The runs of a file; none where there is no file. A torn last line is passed over."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if "config" in row:
            lines.append(row)
    return lines
