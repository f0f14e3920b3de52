"""A session's score on a task's items."""

from collections.abc import Callable, Sequence

from ...planner.errors import BadInput
from ...runtime import Session
from .base import Item, Task
from .scores import Score


def evaluate(
    session: Session,
    task: Task,
    items: Sequence[Item],
    on_item: Callable[[int, float], None] | None = None,
) -> Score:
    """Generate greedily for every item, in batches of the session's size, and score the text.

    The session needs room for the longest prompt and, as `output`, the largest `max_new_tokens`.
    `on_item` is told each item's number and score as soon as they are known. Raises BadInput
    without a tokenizer or without room.
    """
    if session.tokenizer is None:
        raise BadInput("this model was loaded without a tokenizer", "pass one to load()")
    batch = session.cache.clock.starts.shape[0]
    scores: list[float] = []
    for start in range(0, len(items), batch):
        group = items[start : start + batch]
        filled = [*group, *[group[-1]] * (batch - len(group))]
        prompts = [list(item.prompt_ids) for item in filled]
        texts = session.generate(prompts, max(item.max_new_tokens for item in group)).text
        assert texts is not None  # there is a tokenizer
        for item, text in zip(group, texts, strict=False):
            scores.append(task.score(item, text))
            if on_item is not None:
                on_item(len(scores) - 1, scores[-1])
    return Score.of(scores)
