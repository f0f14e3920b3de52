"""What the configuration keeps of the score: tasks' items under it and without quantization.

The items' prompts are as long as the planned context. The unquantized scores come from the model's
calibration rows where the same items were scored before, else from the 16-bit model on this device,
if it fits there; it runs after the verified configuration, never beside it.

Retention's interval is of the paired ratio (scores.py); it is inside the promise where the two
intervals meet. With few items that is a weak test, and `items` says how many there were; where no
score at all could fail it, nothing is judged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from ...planner.errors import BadInput
from ...planner.formats.configuration import Configuration
from ...planner.workload import Workload
from ...report.saved_plan import Overall
from ...runtime import Session
from .. import tasks
from ..execution.loaded_model import OpenModel
from ..measure.early_stopping import ABLE, is_unquantized, kind_of, retention_error
from ..records.record_file import Record
from ..tasks.base import Item
from ..tasks.scores import Score, paired
from .judge import Side

Notice = Callable[[str], None]

_WEAK = "not judged: with so few items even a score of 0 would meet the promise"


@dataclass(frozen=True)
class TaskScore:
    """One task. `reference` is the unquantized score on the same items, None where there is none;
    `note` then says why nothing is judged."""

    task: str
    kind: str
    score: Score
    reference: Score | None = None
    reference_from: str = ""
    retention: float | None = None
    sd: float | None = None
    note: str = ""

    def interval(self, level: float) -> tuple[float, float] | None:
        if self.retention is None or self.sd is None:
            return None
        half = NormalDist().inv_cdf(0.5 + level / 2) * self.sd
        return self.retention - half, self.retention + half

    def document(self, promise: Overall) -> dict[str, Any]:
        level = promise.level
        promised = promise.tasks.get(self.kind, promise)
        interval = self.interval(level)
        side = self.side(promise)
        return {
            "task": self.task,
            "kind": self.kind,
            "items": len(self.score.per_item),
            "score": self.score.value,
            "score_stderr": self.score.stderr,
            "reference": self.reference.value if self.reference else None,
            "reference_from": self.reference_from or None,
            "retention": self.retention,
            "retention_sd": self.sd,
            "low": interval[0] if interval else None,
            "high": interval[1] if interval else None,
            "level": level,
            "predicted": promised.retention,
            "predicted_low": promised.low,
            "predicted_high": promised.high,
            "inside": None if side is None else side == "inside",
            "side": side,
            "note": self.note or (_WEAK if self._cannot_fail(promise) else ""),
        }

    def side(self, promise: Overall) -> Side | None:
        """Whether the measured interval meets the promised one."""
        interval = self.interval(promise.level)
        if interval is None:
            return None
        promised = promise.tasks.get(self.kind, promise)
        if interval[1] < promised.low:
            return "worse"
        if interval[0] > promised.high:
            return "better"
        return None if self._cannot_fail(promise) else "inside"

    def _cannot_fail(self, promise: Overall) -> bool:
        """Whether so few items, none of them answered, would still meet the promise."""
        if self.retention is None:
            return False
        nothing = replace(self, retention=0.0, sd=retention_error(0.0, len(self.score.per_item)))
        reached = nothing.interval(promise.level)
        return reached is not None and reached[1] >= promise.tasks.get(self.kind, promise).low


class Examiner:
    """Scores the tasks that fit the planned context. `count` items each, drawn by `seed`."""

    def __init__(
        self, tokenizer: Any, workload: Workload, names: Sequence[str], count: int, seed: int,
        notice: Notice, explicit: bool,
    ) -> None:  # fmt: skip
        """`explicit`: the tasks were asked for by name, so one that does not fit is an error."""
        self.workload, self.count, self.seed = workload, count, seed
        self._notice = notice
        self.items: dict[str, list[Item]] = {}
        if tokenizer is None:
            notice("no tokenizer: no task can be scored")
            return
        for task in tasks.find(names):
            try:
                items = task.items(tokenizer, workload.context, count, seed)
            except BadInput as error:
                if explicit:
                    raise
                notice(f"{error.message}: left out")
                continue
            self.items[task.name] = items

    @property
    def room(self) -> int:
        """Tokens of a cache that holds the prompts and their longest answers."""
        answers = [i.max_new_tokens for items in self.items.values() for i in items]
        return self.workload.context + max(answers, default=0)

    def score(
        self, opened: OpenModel, config: Configuration, names: Sequence[str]
    ) -> dict[str, Score]:
        """Scores of tasks under `config`. Raises NothingFits, or torch.OutOfMemoryError."""
        if not names:
            return {}
        if opened.device.type == "cpu":
            opened.model.float()  # as calibrate does: products in bfloat16 take four times as long
        from ...runtime.loading import dynamic_chunks

        work = Workload(self.room, 0, self.workload.batch)
        scores: dict[str, Score] = {}
        with Session(
            opened.model,
            opened.spec,
            config,
            tokens=self.room,
            batch=self.workload.batch,
            tokenizer=opened.tokenizer,
            dynamic=dynamic_chunks(opened.spec, config, work, None, opened.device)
            if opened.device.type == "cuda"
            else None,
        ) as session:
            for name in names:
                (task,) = tasks.find([name])
                total = len(self.items[name])

                def tell(number: int, value: float, name: str = name, total: int = total) -> None:
                    self._notice(f"{name} {number + 1}/{total}")

                scores[name] = tasks.evaluate(session, task, self.items[name], tell)
        return scores

    def known(self, records: Sequence[Record]) -> dict[str, Score]:
        """Unquantized scores of these very items among the rows of a calibration."""
        scores: dict[str, Score] = {}
        for record in records:
            same = (record.context, record.seed) == (self.workload.context, self.seed)
            whole = record.outcome == "ok" and len(record.items) >= self.count
            if same and whole and is_unquantized(Configuration.parse(record.config)):
                scores.setdefault(record.task, Score.of(record.items[: self.count]))
        return {name: score for name, score in scores.items() if name in self.items}


def compare(
    name: str, score: Score, reference: tuple[Score, str] | None, why_not: str
) -> TaskScore:
    """Retention of a task, or why there is none. `reference`: the score, and where it is from."""
    kind = kind_of(name)
    if reference is None:
        return TaskScore(name, kind, score, note=why_not)
    whole, where = reference
    if whole.value < ABLE:
        note = f"the unquantized model itself scores {whole.value:.2f}: nothing to keep"
        return TaskScore(name, kind, score, whole, where, note=note)
    pair = paired(whole, score)
    error = retention_error(pair.retention_stderr, len(score.per_item))
    return TaskScore(name, kind, score, whole, where, pair.retention, error)
