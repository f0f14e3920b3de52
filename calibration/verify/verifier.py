"""The order of a verification: run under the cap, score, judge, write the rows, correct.

The cap is in force while the weights load, while the run is measured, and while the tasks are
scored under the configuration. The unquantized model, which the scores are compared with, is not
part of what was planned: it runs afterwards, without the cap.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...planner.accuracy.calibrations import META, begin
from ...planner.engines.kvpareto import KVPARETO
from ...planner.errors import BadInput, one_line
from ...planner.formats.configuration import Configuration
from ...planner.hardware.gpus import Hardware
from ...planner.libraries import import_failure
from ...planner.memory import estimate as memory
from ...planner.models.spec import ModelSpec
from ...planner.units import format_bytes
from ...runtime.failures import is_out_of_memory
from ..design.candidates import chunk_for
from ..design.options import asks_own_prose
from ..execution.loaded_model import OpenModel, open_model
from ..execution.run import execute, load_failure
from ..execution.run_record import Execution, RunRequest, Warmup
from ..measure.early_stopping import is_unquantized
from ..records.environment import environment
from ..records.record_file import Record, RecordFile, now
from ..tasks.scores import Score
from .cases import VerificationCase, predict
from .judge import latency_terms, memory_terms
from .receipt import receipt
from .replan import correction
from .score_tasks import Examiner, Notice, TaskScore, compare
from .to_records import EXECUTION, execution_row, reference_row, task_rows

QUICK_TOKENS = 64
"""Tokens that are generated at most with --quick."""


@dataclass(frozen=True)
class VerifySettings:
    """How to verify. `tasks` are names; `explicit` whether somebody asked for them by name."""

    device: str
    gpu: Hardware | None
    random_weights: bool
    quick: bool
    tasks: tuple[str, ...]
    explicit: bool
    items: int
    seed: int
    offline: bool
    trust_remote_code: bool = False


class Verifier:
    """Verifies questions about one model; `file` is its calibration, open for appending."""

    def __init__(self, settings: VerifySettings, file: RecordFile, notice: Notice) -> None:
        self._settings, self._file, self._notice = settings, file, notice

    def verify(self, question: VerificationCase) -> dict[str, Any]:
        """Run, judge, write; the receipt. Raises BadInput for what cannot be run at all."""
        question = self._priced(question)
        execution, examiner, scores = self._run(question)
        if execution.outcome == "refused":
            raise BadInput(
                f"{question.config} cannot be run: {execution.reason}",
                "docs/runtime.md says what the runtime refuses",
            )
        rows = [execution_row(execution, self._settings.seed)]
        scored: list[TaskScore] = []
        if examiner is not None and scores:
            references, why_not, measured = self._references(question, examiner, scores)
            ended = now()
            if self._is_comparable(examiner.count):
                rows += [
                    reference_row(
                        execution, _unquantized(question), name, score, self._settings.seed, ended
                    )
                    for name, score in measured.items()
                ]
            scored = [
                compare(name, score, references.get(name), why_not)
                for name, score in scores.items()
            ]
            rows += task_rows(execution, scored, self._settings.seed, ended)
        written = self._write(question.spec, [row for row in rows if row is not None])
        return self._receipt(question, execution, scored, written)

    def _priced(self, question: VerificationCase) -> VerificationCase:
        """With seconds predicted for the GPU that runs, where the plan's are for none or another;
        the plan's memory and accuracy stay as promised."""
        gpu = self._settings.gpu
        if gpu is None or gpu.name == question.plan_gpu:
            return question
        here = predict(question.request, question.config, gpu)
        seconds = {name: getattr(here, name) for name in ("ttft_s", "tpot_s", "latency")}
        return replace(
            question, planned=question.planned.model_copy(update=seconds), plan_gpu=gpu.name
        )

    def _run(
        self, question: VerificationCase
    ) -> tuple[Execution, Examiner | None, Mapping[str, Score]]:
        """The run, and the tasks' scores under the configuration."""
        settings, config, request = self._settings, question.config, question.request
        asked = RunRequest(
            question.spec, config, request.workload, request.engine, settings.device,
            settings.random_weights, request.budget,
            Warmup.SHORT if settings.quick else Warmup.FULL,
        )  # fmt: skip
        started = now()
        self._notice(f"loading {question.spec.name} at {config.weight_bits} bits")
        try:
            with self._opened(question, config.weight_bits, request.budget) as opened:
                self._notice(f"running {config} at {request.workload.context:,} tokens")
                execution = execute(
                    opened, config, request.workload, engine=request.engine,
                    budget=request.budget, warmup=asked.warmup,
                    generate=QUICK_TOKENS if settings.quick else None,
                )  # fmt: skip
                if execution.outcome != "ok" or not self._is_scored(question):
                    return execution, None, {}
                examiner = Examiner(
                    opened.tokenizer, request.workload, settings.tasks, settings.items,
                    settings.seed, self._notice, settings.explicit,
                )  # fmt: skip
                return execution, examiner, self._scores(question, opened, examiner)
        except Exception as error:
            return load_failure(error, asked, started), None, {}

    def _opened(self, question: VerificationCase, bits: int, budget: int | None) -> Any:
        settings = self._settings
        return open_model(
            question.source, bits, device=settings.device,
            random_weights=settings.random_weights, budget=budget, offline=settings.offline,
            dtype=question.spec.dtype,
            trust_remote_code=settings.trust_remote_code,
            packed_cache=question.request.engine is KVPARETO,
        )  # fmt: skip

    def _is_scored(self, question: VerificationCase) -> bool:
        ours = question.request.engine is KVPARETO
        return ours and not self._settings.random_weights and not is_unquantized(question.config)

    def _scores(
        self, question: VerificationCase, opened: OpenModel, examiner: Examiner
    ) -> Mapping[str, Score]:
        """The tasks under the configuration, under the cap."""
        budget = question.request.budget
        held = nullcontext() if opened.memory is None else opened.memory.held_to(budget)
        try:
            with held:
                return examiner.score(opened, question.config, tuple(examiner.items))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = one_line(str(error), 120)
            self._notice(f"no task is scored: the cache of the answers does not fit ({reason})")
            return {}

    def _references(
        self, question: VerificationCase, examiner: Examiner, names: Mapping[str, Score]
    ) -> tuple[dict[str, tuple[Score, str]], str, dict[str, Score]]:
        """The unquantized scores with where they are from, why those that lack do, and those that
        were measured now."""
        shared = self._is_comparable(None)
        rows = examiner.known(self._file.records) if shared else {}
        references = {name: (score, "calibration rows") for name, score in rows.items()}
        left = [name for name in names if name not in references]
        if not left:
            return references, "", {}
        why_not = self._why_no_reference(question)
        if why_not:
            return references, why_not, {}
        self._notice(f"scoring {question.spec.name} unquantized")
        try:
            with self._opened(question, 16, None) as opened:
                measured = examiner.score(opened, _unquantized(question), left)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return references, "the unquantized model does not fit this device", {}
        references |= {name: (score, "measured now") for name, score in measured.items()}
        return references, "", dict(measured)

    def _is_comparable(self, items: int | None) -> bool:
        """Whether the profile's rows of our seed are of our own prose; where `items` is given,
        whether as many of it may be added to them as the unquantized model's."""
        folder, records = self._file.path.parent, self._file.records
        return asks_own_prose(folder, records, self._settings.seed, items)

    def _why_no_reference(self, question: VerificationCase) -> str:
        request = question.request
        spec = request.engine.dequantized(request.spec)
        if spec.quantization is not None:
            return "the checkpoint is quantized already: there is no unquantized score"
        if self._settings.device != "cuda":
            return ""
        needs = memory.estimate(
            spec, _unquantized(question), request.workload, request.engine, None
        ).total
        has = torch.cuda.mem_get_info()[1]
        if needs <= has:
            return ""
        return (
            f"the unquantized model needs {format_bytes(needs)}, this device has "
            f"{format_bytes(has)}, and the calibration has no rows of these items"
        )

    def _write(self, spec: ModelSpec, rows: Sequence[Record]) -> int:
        """Append what is new, and fit again where it says something about accuracy."""
        done = self._file.done
        new = [row for row in rows if row.task == EXECUTION or row.key not in done]
        for row in new:
            self._file.append(row)
        folder = self._file.path.parent
        if any(row.retention is not None for row in new) or not (folder / META).exists():
            try:
                from ..design.campaign import write_profile
                from ..fit.hardware.gpu import refit

                self._notice("fitting")
                here = environment(self._settings.device)
                write_profile(folder, spec, self._file.records, here)
                refit(here.gpu, self._notice)
            except Exception as error:
                unusable = import_failure(error, "the fit", "calibrate")
                if unusable is None:
                    raise
                begin(folder, spec)
                self._notice(f"the rows are kept; {unusable.message}: {unusable.hint}")
        return len(new)

    def _receipt(
        self,
        question: VerificationCase,
        execution: Execution,
        scored: Sequence[TaskScore],
        written: int,
    ) -> dict[str, Any]:
        gpu = self._settings.gpu
        same_gpu = gpu is not None and gpu.name == question.plan_gpu
        terms = memory_terms(question.planned, execution)
        lost = any(one.side(question.planned.accuracy) == "worse" for one in scored)
        request = replace(question.request, hardware=gpu)
        again = None
        if execution.outcome != "crashed":
            ran = execution.outcome == "ok"
            again = correction(request, question.config, terms, ran, lost, self._settings.device)
        seconds = latency_terms(question.planned, execution, gpu is not None, same_gpu)
        return receipt(question, execution, [*terms, *seconds], scored, again, written)


def _unquantized(question: VerificationCase) -> Configuration:
    return Configuration(
        chunk=question.config.chunk or chunk_for(question.request.workload.context)
    )
