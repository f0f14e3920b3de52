"""Generated long-context tasks: retrieval, tracing, aggregation and arithmetic at any length.

    from kvpareto.calibration import tasks
    task, = tasks.find("needle")
    items = task.items(tokenizer, length=32768, count=32, seed=0)
    score = tasks.evaluate(session, task, items)

Defined like RULER's (arXiv 2404.06654; each task names its counterpart), made through the model's
own tokenizer, deterministic by seed, scored exactly. Adding one: a file with a dataclass that
derives from `Task`, a line in `TASKS`, a row in docs/tasks.md, hand-derived scores in the tests.
"""

from collections.abc import Sequence

from ...planner.errors import BadInput
from .arithmetic import Arithmetic
from .base import Item, Task
from .common_words import CommonWords
from .evaluate import evaluate
from .haystack import read_haystack
from .needle import Needle
from .variable_tracking import Variables

__all__ = ["TASKS", "Item", "Task", "evaluate", "find", "read_haystack"]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Needle("needle"),
        Needle("needle-multikey", keys=4),
        Needle("needle-multivalue", values=4),
        Variables("variables"),
        CommonWords("common-words"),
        Arithmetic("arithmetic"),
    )
}


def find(names: str | Sequence[str]) -> list[Task]:
    """Tasks by name: a list, or text with commas; `all` is every one. Raises BadInput."""
    asked = names.split(",") if isinstance(names, str) else list(names)
    asked = [name.strip() for name in asked]
    if asked == ["all"]:
        return list(TASKS.values())
    for name in asked:
        if name not in TASKS:
            raise BadInput(
                f"no task is called {name!r}",
                f"tasks are {', '.join(TASKS)}, all; the harness's are written lm_eval:NAME",
            )
    return [TASKS[name] for name in dict.fromkeys(asked)]


DOOR = (
    "arithmetic",
    "base",
    "common_words",
    "fit_length",
    "fits_context",
    "haystack",
    "lm_eval",
    "needle",
    "scores",
    "variable_tracking",
    "words",
)
"""Modules that other rooms may import, beside what stands above."""
