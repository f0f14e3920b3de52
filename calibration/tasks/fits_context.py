"""Whether tasks that were asked for by name fit a context, which the tokenizer says in a second.
Weights take minutes.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ...planner.errors import BadInput
from .base import Task

LONG = 2048
"""Tokens that every task fits with any tokenizer: longer contexts are not tried."""


def check_fits(
    name: str, tokenizer: PreTrainedTokenizerBase | None, chosen: Sequence[Task], context: int
) -> None:
    """Raise BadInput where the model `name` has no tokenizer, and, naming the task, where one of
    `chosen` needs more than `context` tokens."""
    if not chosen:
        return
    if tokenizer is None:
        raise BadInput(
            f"{name} has no tokenizer, and tasks are text",
            "give a folder that holds tokenizer.json",
        )
    if context >= LONG:
        return
    for task in chosen:
        task.items(tokenizer, context, 1, 0)
