"""Tasks scored through vLLM: prompts as token ids in, answers as token ids out.

The items are those of every other verification, and so is how they are scored; the tokenizer is
ours to call, so vLLM needs none.
"""

from collections.abc import Sequence

from ...planner.accuracy.prediction import Accuracy
from ...planner.workload import Workload
from ...report.saved_plan import Overall, PromisedRetention
from .. import tasks
from ..tasks.scores import Score
from ..verify.score_tasks import Examiner, Notice, TaskScore, compare
from .start import StartReading


class ServedExam:
    """`prompts` and `answer` (tokens that each may take) of all tasks, one after another."""

    def __init__(
        self, folder: str, workload: Workload, names: str, count: int, seed: int,
        notice: Notice, explicit: bool,
    ) -> None:  # fmt: skip
        """Raises BadInput where a task that was asked for does not fit the context."""
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        wanted = tuple(task.name for task in tasks.find(names))
        items = Examiner(self._tokenizer, workload, wanted, count, seed, notice, explicit).items
        self._items = [(name, item) for name, found in items.items() for item in found]
        self.prompts = [item.prompt_ids for _, item in self._items]
        self.answer = [item.max_new_tokens for _, item in self._items]

    def scores(self, found: StartReading) -> dict[str, Score]:
        """Each task's score; empty where vLLM did not answer."""
        if len(found.answers) != len(self._items):
            return {}
        each: dict[str, list[float]] = {}
        for (name, item), tokens in zip(self._items, found.answers, strict=True):
            (task,) = tasks.find([name])
            text = str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))
            each.setdefault(name, []).append(task.score(item, text))
        return {name: Score.of(values) for name, values in each.items()}


def scored(
    under: dict[str, Score], whole: dict[str, Score], where: str, why_not: str
) -> Sequence[TaskScore]:
    """Each task's retention against `whole`, the same items without quantization."""
    return [
        compare(name, score, (whole[name], where) if name in whole else None, why_not)
        for name, score in under.items()
    ]


def promise(kept: Accuracy) -> Overall:
    """A prediction as a plan's file has it."""
    kinds = {
        kind: PromisedRetention(retention=t.retention, low=t.low, high=t.high)
        for kind, t in kept.tasks.items()
    }
    return Overall(
        retention=kept.retention,
        low=kept.low,
        high=kept.high,
        level=kept.level,
        provenance=kept.provenance,
        task=kept.task,
        tasks=kinds,
    )
