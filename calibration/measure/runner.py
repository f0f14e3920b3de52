"""One configuration measured, row by row: KL first, tasks second, failures as rows.

For each context the divergence from the unquantized model is a row, then each task. A run is
given up early when it is hopeless, by the rules of early_stopping.py. Running out of memory, or
any crash, ends the configuration at that context, and is a row.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from ...planner.errors import KVParetoError
from ...planner.formats.configuration import Configuration
from ...runtime.failures import NotFinite, is_out_of_memory
from ..records.record_file import (
    DIVERGENCE,
    LAYERS,
    POSITIONS,
    PROBED_LAYERS,
    TAIL,
    WINDOW,
    Record,
    now,
)
from ..tasks.scores import Score, paired
from .divergence import tail_of
from .early_stopping import (
    ABLE,
    FIRST,
    HALF,
    HOPELESS,
    is_lost,
    is_unquantized,
    retention_error,
)
from .layer_probe import PROBED
from .layer_sensitivity import Sensitivity
from .rows import ProfileIdentity, RowMaker, RowSubject, check_finite, score_fields
from .trial import Trial

MOST_CRASHES = 3
"""Crashes in a row after which something else is broken than a configuration."""


class TooManyCrashes(KVParetoError):
    """Every configuration crashes: the last reason is in the message (exit code 1)."""

    exit_code = 1


class LoadsModel(Protocol):
    """What trials are had from: a Bench, or a stand-in of a test."""

    def open(self, config: Configuration, context: int) -> AbstractContextManager[Trial]: ...

    def fitting_tasks(self, context: int) -> list[str]: ...

    def probe(self) -> tuple[Sensitivity, int]: ...


class ConfigurationRunner:
    """Measures configurations and hands each row to `append` as soon as it is known."""

    def __init__(
        self,
        bench: LoadsModel,
        identity: ProfileIdentity,
        records: Sequence[Record],
        append: Callable[[Record], None],
        *,
        items: int,
        notice: Callable[[str], None],
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        """`records` are the rows so far, which `append` adds to; `kinds` says what tasks beside
        the generated ones ask of the cache."""
        self._rows_of = RowMaker(identity, dict(kinds or {}))
        self._bench, self._records = bench, records
        self._append, self._items, self._notice = append, items, notice
        self._crashes = 0

    def run(self, config: Configuration, context: int) -> None:
        """All rows of `config` at `context` that are not there yet.

        Raises TooManyCrashes; NotFinite where the unquantized model itself gives no numbers.
        """
        done = {r.task: r for r in self._rows(config, context)}
        if any(r.outcome != "ok" for r in done.values()):
            return
        left = [name for name in self._names(config, context) if name not in done]
        if not left or is_lost(done.get(DIVERGENCE)):
            return
        at = RowSubject(config, context, left[0], now())
        try:
            with self._bench.open(config, context) as trial:
                for name in left:
                    at = RowSubject(config, context, name, now())
                    measure = self._divergence if name == DIVERGENCE else self._task
                    row = measure(trial, at)
                    self._append(row)
                    if name == DIVERGENCE and is_lost(row):
                        break
        except NotFinite as error:
            self._append(self._rows_of.failure(at, error))
            if is_unquantized(config):  # there is nothing to compare with
                raise
        except Exception as error:
            if isinstance(error, KVParetoError) and not is_out_of_memory(error):
                raise
            row = self._rows_of.failure(at, error)
            self._append(row)
            if row.outcome == "out_of_memory":
                return
            self._crashes += 1
            if self._crashes >= MOST_CRASHES:
                raise TooManyCrashes(
                    f"{MOST_CRASHES} configurations in a row crashed, the last with {row.reason}",
                    "measured rows are kept; remove the cause, then continue with --resume",
                ) from error
        else:
            self._crashes = 0

    def probe(self) -> Sensitivity | None:
        """How sensitive each layer is, as a row unless there is one; None where that failed."""
        if not any(row.task == LAYERS for row in self._records):
            at = RowSubject(PROBED, 0, LAYERS, now())
            try:
                sensitivity, tokens = self._bench.probe()
                details = {PROBED_LAYERS: float(len(sensitivity.keys))}
                self._append(
                    self._rows_of.row(
                        replace(at, context=tokens),
                        items=sensitivity.items,
                        details=details,
                    )
                )
            except KVParetoError:
                raise
            except Exception as error:
                self._append(self._rows_of.failure(at, error))
        return Sensitivity.of(self._records)

    def reference(self, task: str, context: int) -> Record | None:
        """The unquantized model's row of a task."""
        for record in self._records:
            same = (record.task, record.context) == (task, context)
            if (
                same
                and record.seed == self._rows_of.identity.seed
                and record.outcome == "ok"
                and is_unquantized(Configuration.parse(record.config))
            ):
                return record
        return None

    def _names(self, config: Configuration, context: int) -> list[str]:
        """What is run: the divergence, then the tasks that the unquantized model can do."""
        names = self._bench.fitting_tasks(context)
        if not is_unquantized(config):
            names = [name for name in names if self._is_able(name, context)]
        return [DIVERGENCE, *names]

    def _is_able(self, task: str, context: int) -> bool:
        row = self.reference(task, context)
        return row is not None and (row.score or 0.0) >= ABLE and row.reason is None

    def _rows(self, config: Configuration, context: int) -> list[Record]:
        key = str(config), context, self._rows_of.identity.seed
        return [
            r for r in self._records if (r.config, r.context, r.seed) == key and r.task != LAYERS
        ]

    def _divergence(self, trial: Trial, at: RowSubject) -> Record:
        divergence = trial.divergence()
        check_finite(divergence.kl.value, divergence.nll.value, divergence.reference_nll.value)
        speed = trial.speed()
        kept = divergence.kept
        row = self._rows_of.row(
            at,
            items=divergence.excess.per_item,
            score=divergence.nll.value,
            stderr=divergence.nll.stderr,
            reference=divergence.reference_nll.value,
            retention=kept,
            retention_sd=kept * divergence.excess.stderr,
            details={
                "kl": divergence.kl.value,
                "kl_stderr": divergence.kl.stderr,
                "top1": divergence.top1.value,
                POSITIONS: divergence.positions,
                WINDOW: trial.window(),
                TAIL: tail_of(trial.window()),
            },
            memory=trial.memory(),
            ttft_s=speed.ttft_s,
            tpot_s=speed.tpot_s,
        )
        if is_lost(row):
            row = row.model_copy(update={"reason": "no task was run: the text itself is lost"})
        return row

    def _task(self, trial: Trial, at: RowSubject) -> Record:
        if is_unquantized(at.config):
            score, early = self._scored(trial, at.task, HOPELESS)
            if score.value < ABLE or early:
                self._notice(
                    f"the unquantized model scores {score.value:.2f} on {at.task} at "
                    f"{at.context:,} tokens: no configuration is measured there"
                )
            return self._rows_of.row(
                at,
                **score_fields(score),
                details=self._details(trial, at.task),
                memory=trial.memory(),
                retention=1.0,
                reason=f"{early}: the model itself fails" if early else None,
            )
        reference = self.reference(at.task, at.context)
        if reference is None or reference.score is None:
            raise ValueError(f"{at.task} was not run on the unquantized model")
        score, early = self._scored(trial, at.task, HALF * reference.score)
        count = len(score.per_item)
        same = Score.of(reference.items[:count])
        pair = paired(same, score)
        return self._rows_of.row(
            at,
            **score_fields(score),
            reference=same.value,
            retention=pair.retention,
            retention_sd=retention_error(pair.retention_stderr, count),
            details=self._details(trial, at.task),
            memory=trial.memory(),
            reason=f"{early}: it keeps less than half" if early else None,
        )

    def _details(self, trial: Trial, task: str) -> dict[str, float]:
        tokens = trial.prompt_tokens(task)
        return {} if tokens is None else {WINDOW: float(tokens)}

    def _scored(self, trial: Trial, task: str, least: float) -> tuple[Score, str]:
        """All items; or the FIRST ones where their interval ends below `least`, and then that it
        ended early, in words."""
        first = min(FIRST, self._items)
        begun = Score.of(trial.score(task, 0, first))
        check_finite(*begun.per_item)
        if first == self._items:
            return begun, ""
        if begun.interval()[1] < least:
            return begun, f"ended after {len(begun.per_item)} of {self._items} items"
        rest = trial.score(task, first, self._items)
        check_finite(*rest)
        return Score.of([*begun.per_item, *rest]), ""
