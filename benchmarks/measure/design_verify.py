"""`verify`: a hundred plans, each run under its budget as a hard cap: does what was promised hold?

Each case is a question as a person asks it: a model, a budget, a context, what matters. The
planner answers it for the GPU that runs; the answer is run under the budget as a hard cap. Plans
can be made beforehand (`--plan-only --plans FILE`), so that the GPU does not wait for them.

What is made of the rows is in verify_summary.py.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any, Self

from kvpareto.calibration.execution.timing import warm_tokens
from kvpareto.planner.engine import Engine
from kvpareto.planner.engines import find_engine
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.errors import NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpus import Hardware
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.search.recommend import Request, recommend
from kvpareto.planner.units import GB
from kvpareto.planner.workload import Workload
from kvpareto.report.document_parts import point

from .planned_run import PlannedRun
from .real_shapes import spec_of
from .row_file import by_key as key_of
from .row_file import read
from .verify_questions import OUTPUT, QUESTIONS
from .verify_summary import again, table
from .verify_summary import one_line as line

__all__ = ["key_of", "line", "runs", "summary"]

BASELINE_CHUNKS = (None, 4096, 1024)  # of transformers: the largest that fits
RUN_S = 0.7  # of a run, beside the predicted seconds
LONG_S = 3.0


def runs(options: argparse.Namespace) -> list[PlannedRun]:
    """All plans in the order they are run; questions without one come first."""
    if options.plans is not None and not options.plan_only:
        answered = [Question.of(row) for row in read(options.plans)]
        check_planner(answered, options.gpu)
    else:
        answered = answer(options.gpu, options.only)
        if options.plans is not None:
            options.plans.write_text("".join(json.dumps(q.row()) + "\n" for q in answered))
    none = [question for question in answered if question.config is None]
    return [question.run() for question in (*none, *in_passes(answered))]


def summary(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> Iterator[str]:
    """The table by model, then the bars; `--again`: with today's predictions."""
    if options.again:
        rows = [again(row, find_gpu(options.gpu)) for row in rows]
    return table(rows)


@dataclass(frozen=True)
class Question:
    """A question and its answer. `answer` is None where nothing fits: `reason` says it."""

    model: str
    budget: int
    context: int
    objective: str
    engine: Engine
    config: Configuration | None = None
    planned: dict[str, Any] | None = None
    """As report.document.point writes it."""
    next_up: dict[str, Any] | None = None
    """The smallest point beyond the budget that is worth it, likewise."""
    reason: str = ""

    @property
    def workload(self) -> Workload:
        return Workload(self.context, OUTPUT)

    @property
    def expected_seconds(self) -> float:
        """The run itself, its warm-up, and what a run takes beside them."""
        if self.config is None:
            return 0.0
        planned = self.planned or {}
        ttft, tpot = planned.get("ttft_s") or 0.0, planned.get("tpot_s") or 0.0
        warm = warm_tokens(spec_of(self.model), self.config, self.context) / self.context
        return RUN_S + (1 + 0.6 * warm) * ttft + self.workload.output * tpot

    def run(self) -> PlannedRun:
        """What is run under the budget, or the reason why nothing is."""
        facts = {"objective": self.objective, "planned": self.planned, "next_up": self.next_up}
        return PlannedRun(
            key=self.key,
            model=self.model,
            config=self.config,
            workload=self.workload,
            engine=self.engine,
            seconds=self.expected_seconds,
            budget=self.budget,
            fields={"reason": self.reason} if self.config is None else facts,
        )

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        return self.model, self.engine.name, self.budget, self.context, self.objective

    def row(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "engine": self.engine.name, "config": str(self.config or "")}

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        config = Configuration.parse(row["config"]) if row["config"] else None
        return cls(**(row | {"engine": find_engine(row["engine"]), "config": config}))


def answer(gpu: str, only: str = "") -> list[Question]:
    """All questions, answered for `gpu`, in processes beside each other."""
    asked = [
        (model, budget, context, kind, gpu)
        for model, questions in QUESTIONS.items()
        for budget, context, kind in questions
        if only.lower() in model.lower()
    ]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return list(pool.map(_answer, asked, chunksize=2))


def _answer(asked: tuple[str, float, int, str, str]) -> Question:
    model, size, context, kind, name = asked
    budget, gpu, spec = int(size * GB), find_gpu(name), spec_of(model)
    if kind == "transformers":
        return _baseline(Question(model, budget, context, "accuracy", TRANSFORMERS), spec, gpu)
    case = Question(model, budget, context, kind, KVPARETO)
    request = Request(spec, case.workload, case.engine, budget, gpu, objective=kind)
    try:
        plan = recommend(request)
    except NothingFits as error:
        return Question(*case.key[:1], budget, context, kind, case.engine, reason=error.message)
    best, up = plan.recommended, plan.next_up
    return Question(
        model, budget, context, kind, case.engine, best.config,
        point(best.config, best.memory, best.accuracy, best.latency),
        point(up.config, up.memory, up.accuracy, up.latency) if up else None,
    )  # fmt: skip


def _baseline(case: Question, spec: ModelSpec, gpu: Hardware) -> Question:
    """transformers at 16 bits, in the largest chunks that fit."""
    from kvpareto.planner.accuracy import predict as accuracy
    from kvpareto.planner.latency import predict as latency

    for chunk in BASELINE_CHUNKS:
        config = Configuration(chunk=chunk)
        estimate = memory.estimate(spec, config, case.workload, case.engine, gpu)
        if estimate.total_high <= case.budget:
            kept = accuracy.predict(spec, config, case.context)
            seconds = latency.predict(spec, config, case.workload, case.engine, gpu)
            planned = point(config, estimate, kept, seconds)
            return Question(
                case.model, case.budget, case.context, case.objective, case.engine, config, planned
            )
    return Question(
        case.model, case.budget, case.context, case.objective, case.engine,
        reason="transformers does not fit at 16 bits",
    )  # fmt: skip


def in_passes(answered: Sequence[Question]) -> list[Question]:
    """In passes over the models: every model's largest group of equal weight bits, then every
    model's next; what takes LONG_S seconds or more comes after all that does not."""
    by_model: dict[str, dict[int, list[Question]]] = {}
    long: list[Question] = []
    for question in answered:
        if question.config is not None and question.expected_seconds < LONG_S:
            bits = question.config.weight_bits
            by_model.setdefault(question.model, {}).setdefault(bits, []).append(question)
        elif question.config is not None:
            long.append(question)
    passes: list[list[Question]] = []
    for by_bits in by_model.values():
        largest = sorted(by_bits.values(), key=lambda members: -len(members))
        for number, members in enumerate(largest):
            if number == len(passes):
                passes.append([])
            passes[number] += sorted(members, key=lambda question: question.context)
    long.sort(key=lambda question: question.expected_seconds)
    return [*(question for members in passes for question in members), *long]


def check_planner(answered: Sequence[Question], gpu: str) -> None:
    """End where the plans are another planner's: they would tell nothing of this one."""
    for question in answered:
        if question.config is None or question.planned is None:
            continue
        spec, card = spec_of(question.model), find_gpu(gpu)
        total = memory.estimate(
            spec, question.config, question.workload, question.engine, card
        ).total
        if total != question.planned["memory"]["total"]:
            raise SystemExit(
                f"error: {question.model} {question.config} was planned with "
                f"{question.planned['memory']['total']} bytes, and is {total} today\n"
                "hint: make the plans again with --plan-only"
            )
