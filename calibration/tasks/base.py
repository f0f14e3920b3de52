"""What every generated task shares: items of an exact length in tokens, for base and chat models.

A task draws a puzzle (what to say before and after the long text, where the answer starts, what
is right); this module fills the long text until the whole prompt, chat template and special
tokens included, is as long as asked, to within one word of the text.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from ...planner.errors import BadInput
from .fit_length import largest
from .haystack import Haystack, bundled_haystack

SLACK = 8  # tokens a model may spend on other words than the ideal answer's, beside half as many


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt, as text and as tokens (template included), and what a right answer holds."""

    text: str
    prompt_ids: tuple[int, ...]
    answers: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A prompt whose long part is not yet filled.

    `body(n)` is the long text with n units of filler (words of a haystack, entries of a list);
    `prefix` starts the answer for the model, which keeps answers short and in one form; `ideal`
    is how a perfect answer goes on.
    """

    before: str
    body: Callable[[int], str]
    after: str
    prefix: str
    answers: tuple[str, ...]
    ideal: str


@dataclass(frozen=True)
class Task(ABC):
    """A family of puzzles. Subclasses are small frozen dataclasses whose fields set difficulty."""

    name: str

    @abstractmethod
    def puzzles(
        self,
        rng: random.Random,
        haystack: Haystack,
        length: int,
        tokens: Callable[[str], int],
    ) -> list[Puzzle]:
        """Draw one long text and every question it answers; items ask the first.

        The puzzles have `before` and `body` in common. `tokens` counts a text's tokens, for tasks
        that scale with `length`.
        """

    @abstractmethod
    def score(self, item: Item, generated: str) -> float:
        """How right a generated text is, 0 to 1."""

    def items(
        self,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        count: int,
        seed: int = 0,
        *,
        haystack: Haystack | None = None,
        chat: bool | None = None,
    ) -> list[Item]:
        """`count` items whose prompts have `length` tokens, or as many less as one more word of
        filler would take. The same arguments always give the same items, and the first k of
        `count` do not depend on `count`.

        `chat` asks for the tokenizer's chat template, or not; by default where it has one.
        Raises BadInput where `length` is too short for the task with this tokenizer.
        """
        if chat and not tokenizer.chat_template:
            raise BadInput("this tokenizer has no chat template", "leave chat out")
        templated = bool(tokenizer.chat_template) if chat is None else chat
        pile = bundled_haystack() if haystack is None else haystack

        def tokens(text: str) -> int:
            return len(_encode(tokenizer, text, special=False))

        filled = []
        for index in range(count):
            # a string seeds Python's generator the same way in every process
            rng = random.Random(f"{self.name} {seed} {index}")
            puzzle = self.puzzles(rng, pile, length, tokens)[0]
            filled.append(_fill(puzzle, self.name, tokenizer, length, templated, tokens))
        return filled


def _fill(
    puzzle: Puzzle,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    chat: bool,
    tokens: Callable[[str], int],
) -> Item:
    def prompt(units: int) -> str:
        asked = f"{puzzle.before}\n\n{puzzle.body(units)}\n\n{puzzle.after}"
        if not chat:
            return f"{asked}\n{puzzle.prefix}"
        # Templates ignore what they do not use. A fixed date, or the prompt would change daily.
        opened: Any = tokenizer.apply_chat_template(
            [{"role": "user", "content": asked}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
            date_string="1 January 2025",
        )
        return opened + puzzle.prefix

    def encode(units: int) -> list[int]:
        return _encode(tokenizer, prompt(units), special=not chat)

    shortest = len(encode(0))
    if shortest > length:
        raise BadInput(
            f"task {name} needs {shortest} tokens with this tokenizer, more than {length}",
            "ask for a longer context, or leave this task out",
        )
    units = largest(lambda units: len(encode(units)), length)
    budget = tokens(puzzle.ideal)
    return Item(
        text=prompt(units),
        prompt_ids=tuple(encode(units)),
        answers=puzzle.answers,
        max_new_tokens=budget + budget // 2 + SLACK,
    )


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> list[int]:
    # verbose=False: no warning that the prompt is longer than the model's training length
    return tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
