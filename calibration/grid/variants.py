"""The tasks of the grid, each in ways of falling difficulty: a small model cannot do all.

A variant is kept for a model and a context where the unquantized model scores ABLE; of a group of
variants the first that is. A retention needs a score that quantization can take away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..tasks.arithmetic import Arithmetic
from ..tasks.base import Task
from ..tasks.needle import Needle
from ..tasks.variable_tracking import Variables

BATCH = 16
"""Texts that are read together."""
ITEMS = 256
"""Items a variant, the questions of a text counted each."""
ABLE = 0.6
WANTED = 3
"""Tasks that a run is scored on; `SPARE` ones only where there would be fewer."""


@dataclass(frozen=True)
class Variant:
    """A task of whose questions about a text the first `questions` are asked."""

    name: str
    kind: str
    task: Task
    questions: int

    def texts(self, items: int) -> int:
        """Texts that `items` items take."""
        return max(1, items // self.questions)


GROUPS: tuple[tuple[Variant, ...], ...] = (
    (Variant("needle-16", "retrieval", Needle("needle-multikey", keys=16), 16),),
    (
        Variant("variables-8x2", "reasoning", Variables("variables", 8, 2), 8),
        Variant("variables-4x4", "reasoning", Variables("variables", 4, 4), 4),
        Variant("variables-8x1", "reasoning", Variables("variables", 8, 1), 8),
    ),
    (
        Variant("arithmetic-6", "reasoning", Arithmetic("arithmetic", 6, 16), 16),
        Variant("arithmetic-3", "reasoning", Arithmetic("arithmetic", 3, 16), 16),
    ),
)
SPARE = (Variant("needle-32", "retrieval", Needle("needle-multikey", keys=32), 16),)
VARIANTS: Mapping[str, Variant] = {
    variant.name: variant for group in (*GROUPS, SPARE) for variant in group
}


def chosen(scores: Mapping[str, float]) -> list[str]:
    """The variants to score runs on, from the unquantized model's scores of those that fit; the
    best one where it is able of none."""
    names = []
    for group in GROUPS:
        names += [v.name for v in group if scores.get(v.name, 0.0) >= ABLE][:1]
    for variant in SPARE:
        if len(names) < WANTED and scores.get(variant.name, 0.0) >= ABLE:
            names.append(variant.name)
    return names or sorted(scores, key=lambda name: -scores[name])[:1]


def parts_of(variant: Variant) -> int:
    """Answer parts of one item."""
    task = variant.task
    if isinstance(task, Needle):
        return task.values
    if isinstance(task, Variables):
        return task.hops + 1
    assert isinstance(task, Arithmetic)
    return task.steps


def mean_score(right: Sequence[int], variant: Variant) -> float:
    """Mean share of an item's parts that are right."""
    return sum(right) / (len(right) * parts_of(variant))
