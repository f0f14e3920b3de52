"""Kinds of task that retention is predicted for, and which of them is shown first.

    reasoning        an answer generated in steps, up to about a thousand tokens (GSM8K, code)
    long_reasoning   thousands of generated tokens before the answer (AIME, GPQA with thinking)
    retrieval        one place of the context must be found exactly (needles, passkeys, LongEval)
    reading          what is given or remembered is read tolerantly (documents, summaries, CoQA)
    short_reasoning  a short answer, after a short chain or none (StrategyQA, EQ-Bench), or the
                     letter of an exam's question (MMLU, C-Eval)
    likelihood       a comparison of likelihoods on easier questions (RACE, ARC, HellaSwag)

A configuration keeps more of one kind than of another: long chains of reasoning fall first,
likelihoods last. What a person is promised is what the weakest kind keeps.
"""

from collections.abc import Collection
from math import log

from ..errors import BadInput
from ..light_dataclass import dataclass

MOST_FLOOR = 0.95
"""A baseline may lie below chance by chance."""
USUAL_BASELINE = 0.92
"""Score of the unquantized models on exact retrieval in the published rows, their median."""

GENERATED_KINDS = ("reasoning", "long_reasoning", "retrieval")
"""Task kinds whose answers are generated. The weakest of them is the retention shown first: a
mean would hide what breaks. Likelihood scores (RACE) hardly move under cache noise, so they
cannot tell formats apart."""
OVERALL_KINDS = ("reasoning", "retrieval")
"""Generated kinds that every calibration can measure. Campaigns compare formats by their mean;
where a calibration measured both, the headline rests on measured kinds alone."""
REPORTED_KINDS = (
    *GENERATED_KINDS,
    "reading",
    "short_reasoning",
    "likelihood",
)
EXAMS = ("mmlu", "ceval", "cmmlu", "mmmu")
"""Beginnings of tasks of exam questions: at 2 and 3 bits they lose as short answers do, three times
what the easier questions lose."""
TASKS = tuple(kind.replace("_", "-") for kind in REPORTED_KINDS)
"""The kinds as they are typed."""


def parse_task(text: str) -> str:
    """`long-reasoning` -> the kind `long_reasoning`. Raises BadInput for what is no kind."""
    kind = text.strip().lower().replace("-", "_")
    if kind not in REPORTED_KINDS:
        raise BadInput(f"unknown kind of task: {text!r}", f"choose {', '.join(TASKS)}")
    return kind


def headline_kinds(scored: Collection[str], task: str | None = None) -> tuple[str, ...]:
    """The kinds whose weakest is shown first: `task` alone where one is asked for. `scored` are
    those that the model's calibration measured.

    A calibration that measured reasoning and retrieval speaks for the model by what it measured:
    long reasoning, inferred from other models' rows, then counts only if it was measured too.
    """
    if task is not None:
        return (task,)
    measured = tuple(kind for kind in GENERATED_KINDS if kind in scored)
    return measured if set(OVERALL_KINDS) <= set(measured) else GENERATED_KINDS


@dataclass(frozen=True, slots=True)
class ScoredTask:
    """A task by name, and what is known of its scores: shares of all items, 0 to 1.

    `chance` is what guessing scores, which no noise takes away; `baseline` what the unquantized
    model scores (None: not known).
    """

    task: str
    chance: float = 0.0
    baseline: float | None = None

    @property
    def floor(self) -> float:
        """The least retention that noise leaves: chance over baseline."""
        return min(self.chance / self.baseline, MOST_FLOOR) if self.baseline else 0.0

    @property
    def difficulty(self) -> float:
        """-log of the baseline beyond the usual one; 0 where it is not known."""
        if not self.baseline:
            return 0.0
        return log(USUAL_BASELINE / min(max(self.baseline, 0.05), 1.0))


def task_group(task: str) -> str:
    """What a task's name begins with, by which its rows in many tables are known as one task."""
    words = task.lower().replace("_", " ").split()
    if not words:
        return ""
    return " ".join(words[:2]) if words[0] == "longbench" else words[0]
