"""What configurations are measured on: items of tasks and windows of text, the same for all.

A PromptTexts says what was asked for; Prompts makes it through one model's tokenizer, once, so that
scores of two configurations are of the same items and can be paired.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ... import profiles
from ...planner.errors import BadInput
from .. import tasks
from ..design.user_text import read_user_text
from ..tasks.base import Item
from ..tasks.fits_context import check_fits
from ..tasks.haystack import Haystack, bundled_haystack
from ..tasks.lm_eval import HarnessTasks
from .divergence import check_windows, text_windows
from .long_prose import reference_text


@dataclass(frozen=True)
class PromptTexts:
    """What configurations are measured on. `tasks` are names of generated ones, `items` the items
    of each; `windows` of `text` (None: our own prose) are for the divergence; `harness` are the
    evaluation harness's tasks, which are run at the longest of `contexts`."""

    contexts: tuple[int, ...]
    tasks: tuple[str, ...]
    items: int
    seed: int
    windows: int = 2
    text: Path | None = None
    haystack: Haystack | None = None
    harness: HarnessTasks | None = None


class Prompts:
    """A material as tokens of one model. What needs a tokenizer raises BadInput where the model
    `name` has none."""

    def __init__(
        self, name: str, tokenizer: PreTrainedTokenizerBase | None, material: PromptTexts
    ) -> None:
        self.material = material
        self._name, self._tokenizer = name, tokenizer
        self._items: dict[tuple[str, int], list[Item]] = {}

    def check(self, named: bool) -> None:
        """Raise BadInput for a text that is too short to compare, without a tokenizer, and, where
        tasks were `named`, for one that fits no context."""
        longest = max(self.material.contexts)
        if named and self.material.tasks:
            check_fits(self._name, self._tokenizer, tasks.find(self.material.tasks), longest)
        check_windows(self.windows(longest))

    def items(self, task: str, context: int) -> list[Item]:
        """A task's items, the same for every configuration. Raises BadInput for a context that is
        too short for the task."""
        key = task, context
        if key not in self._items:
            (task_of_name,) = tasks.find([task])
            self._items[key] = task_of_name.items(
                self._needed(),
                context,
                self.material.items,
                self.material.seed,
                haystack=self.material.haystack,
            )
        return self._items[key]

    def fitting_tasks(self, context: int) -> list[str]:
        """The generated tasks whose prompts fit `context` tokens, then the harness's tasks."""
        return [*self._generated(context), *self._harness_names(context)]

    def answer_tokens(self, task: str, context: int) -> float:
        """Mean tokens that answers to a task may take."""
        harness = self.material.harness
        if harness is not None and task in harness.names:
            return harness.answer_tokens
        answers = [item.max_new_tokens for item in self.items(task, context)]
        return sum(answers) / len(answers)

    def longest_answer(self, context: int) -> int:
        """Tokens of the longest answer to any task; 0 where no task fits."""
        answers = [
            item.max_new_tokens
            for name in self._generated(context)
            for item in self.items(name, context)
        ]
        harness = self.material.harness
        if harness is not None and self._harness_names(context):
            answers.append(harness.answer_tokens)
        return max(answers, default=0)

    def windows(self, context: int) -> Tensor:
        """Token windows [N, T] of the text: the user's, else this project's own prose, shuffled
        by sentences, and behind it what Python documents itself with. T is shorter where the text
        ends: nothing is said twice. Raises BadInput for a text that cannot be read."""
        tokenizer = self._needed()
        path, count = self.material.text, self.material.windows
        if path is not None:
            return text_windows(tokenizer, read_user_text(path), context, count)
        rows = [
            text_windows(tokenizer, _prose(context, random.Random(i)), context, 1)
            for i in range(count)
        ]
        shortest = min(row.shape[1] for row in rows)
        return torch.cat([row[:, :shortest] for row in rows])

    def long_text(self, most: int) -> Tensor:
        """Up to `most` tokens [T] of the user's text, else of prose that is in no prompt. Raises
        BadInput for a text that cannot be read."""
        path = self.material.text
        if path is not None:
            text = read_user_text(path)
        else:
            more = reference_text(most, random.Random(0), held_back=True)
            text = f"{profiles.read('calibration_text.md')}\n\n{more}"
        return text_windows(self._needed(), text, most, 1)[0]

    def _generated(self, context: int) -> list[str]:
        return [name for name in self.material.tasks if self._fits(name, context)]

    def _fits(self, task: str, context: int) -> bool:
        try:
            self.items(task, context)
        except BadInput:
            return False
        return True

    def _harness_names(self, context: int) -> tuple[str, ...]:
        harness = self.material.harness
        runs = harness is not None and context == max(self.material.contexts)
        return harness.names if harness is not None and runs else ()

    def _needed(self) -> PreTrainedTokenizerBase:
        if self._tokenizer is None:
            raise BadInput(
                f"{self._name} has no tokenizer", "give a folder that holds tokenizer.json"
            )
        return self._tokenizer


def _prose(words: int, rng: random.Random) -> str:
    """Our own prose and, where so many words are more than it has, Python's reference: text of as
    many tokens at least, since a word is one or more."""
    pile = bundled_haystack()
    own = min(words, pile.words)
    more = reference_text(words - own, rng)
    return pile.hide([], rng)(own) + (f"\n\n{more}" if more else "")
