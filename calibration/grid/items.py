"""Items of the generated tasks, several to a long text, as padded tokens for batches.

Reading a text of 8,192 tokens costs far more than answering one question about it, so every text
is asked all the questions it answers (`Task.puzzles`): the cache is filled once, and each question
starts from it as if it were the only one. The prompt of an item is the task's own, token by token.

An answer is scored without generating it: the ideal answer is fed behind the question, and a part
of it (one number, one name) is right when every token up to its end is the model's first choice.
Greedy decoding would have produced exactly those tokens, so up to the first error the two are one.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ...planner.errors import BadInput
from ..tasks.base import Puzzle, Task
from ..tasks.fit_length import largest
from ..tasks.haystack import bundled_haystack

MULTIPLE = 16
"""Batches are as wide as a multiple of this: Triton compiles for few kinds of widths."""


@dataclass(frozen=True)
class GridQuestion:
    """One question of each of B texts, from where their tokens begin to differ: ids int64 [B, n],
    padded on the right; `asks` bool [B, n], True where the next token is part of the ideal answer;
    `ends` int64 [B, P], the position of each answer part's last token, -1 where there are fewer.
    """

    ids: Tensor
    asks: Tensor
    ends: Tensor


@dataclass(frozen=True)
class ItemBatch:
    """B texts of one task and all their questions. `texts` int64 [B, T] is what the questions of a
    text have in common, padded on the left by `padding` int64 [B]."""

    texts: Tensor
    padding: Tensor
    questions: tuple[GridQuestion, ...]

    @property
    def room(self) -> int:
        """Tokens that the longest text with its longest question takes."""
        return self.texts.shape[1] + max(q.ids.shape[1] for q in self.questions)


def make_batches(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    *,
    texts: int,
    questions: int,
    batch: int,
    seed: int,
) -> list[ItemBatch]:
    """`texts` long texts of the task in batches of `batch`, with at most `questions` to a text; a
    text with its first question takes `length` tokens, or a few less. Raises BadInput where the
    task does not fit, or where the tokenizer does not keep prompt and answer apart."""
    if texts % batch:
        raise BadInput(f"{texts} texts in batches of {batch}", "ask for more items")
    pile = bundled_haystack()

    def tokens(text: str) -> int:
        return len(_encode(tokenizer, text))

    cut = []
    for index in range(texts):
        rng = random.Random(f"grid {task.name} {seed} {index}")
        puzzles = task.puzzles(rng, pile, length, tokens)[:questions]
        cut.append(_cut(puzzles, tokenizer, length))
    return [_batch(cut[at : at + batch]) for at in range(0, texts, batch)]


@dataclass(frozen=True)
class _Text:
    """Tokens of a text, and of each question: (ids, first token of the answer, part ends)."""

    ids: list[int]
    questions: list[tuple[list[int], int, list[int]]]


def _cut(puzzles: Sequence[Puzzle], tokenizer: PreTrainedTokenizerBase, length: int) -> _Text:
    """The puzzles' prompts with ideal answers as tokens, split where they begin to differ."""
    before, body = puzzles[0].before, puzzles[0].body

    def head(units: int) -> str:
        return f"{before}\n\n{body(units)}\n\n"

    tails = [f"{puzzle.after}\n{puzzle.prefix}" for puzzle in puzzles]

    def asked(units: int) -> int:
        return len(_encode(tokenizer, head(units) + tails[0], special=True))

    if asked(0) > length:
        raise BadInput(f"{asked(0)} tokens do not fit {length}", "ask for a longer context")
    text = head(largest(asked, length))
    encode = _encoder(tokenizer, text, tails[0])
    puzzles = [_in_order(puzzle, text) for puzzle in puzzles]
    whole = []
    for puzzle, tail in zip(puzzles, tails, strict=True):
        ids, full = encode(tail), encode(tail + puzzle.ideal)
        if full[: len(ids)] != ids:
            raise BadInput(
                "this tokenizer joins the end of a prompt to the answer", "score by generating"
            )
        whole.append((full, len(ids), _part_ends(puzzle, full[len(ids) :], tokenizer, len(ids))))
    columns = zip(*(ids for ids, _, _ in whole), strict=False)
    common = next((i for i, column in enumerate(columns) if len(set(column)) > 1), len(text))
    shared = min(common, *(start - 1 for _, start, _ in whole))
    return _Text(
        whole[0][0][:shared],
        [
            (ids[shared:], start - shared, [end - shared for end in ends])
            for ids, start, ends in whole
        ],
    )


def _in_order(puzzle: Puzzle, text: str) -> Puzzle:
    """Answers that are copied, in the order of the text: the task takes any, token by token takes
    one."""
    if not all(answer in text for answer in puzzle.answers):
        return puzzle
    order = tuple(sorted(puzzle.answers, key=text.index))
    ideal = puzzle.ideal.replace(", ".join(puzzle.answers), ", ".join(order))
    return replace(puzzle, answers=order, ideal=ideal)


def _encoder(
    tokenizer: PreTrainedTokenizerBase, head: str, tail: str
) -> Callable[[str], list[int]]:
    """Tokens of `head` and what is put behind it; where the tokenizer keeps them apart, as `tail`
    shows, the long head is tokenized once."""
    begun = _encode(tokenizer, head, special=True)
    if begun + _encode(tokenizer, tail) == _encode(tokenizer, head + tail, special=True):
        return lambda more: begun + _encode(tokenizer, more)
    return lambda more: _encode(tokenizer, head + more, special=True)


def _part_ends(
    puzzle: Puzzle, answer: Sequence[int], tokenizer: PreTrainedTokenizerBase, start: int
) -> list[int]:
    """The position of the token that completes each answer, the sign behind it included: it says
    that a number has ended. Spaces are not counted: some tokenizers do not give them back."""

    def signs(text: str) -> int:
        return len("".join(text.split()))

    lengths = [
        signs(str(tokenizer.decode(list(answer[: count + 1]), skip_special_tokens=False)))
        for count in range(len(answer))
    ]
    ends, at = [], 0
    for part in puzzle.answers:
        at = puzzle.ideal.index(part, at) + len(part)
        wanted = min(signs(puzzle.ideal[:at]) + 1, signs(puzzle.ideal))
        ends.append(start + next(i for i, reached in enumerate(lengths) if reached >= wanted))
    return ends


def _batch(texts: Sequence[_Text]) -> ItemBatch:
    longest = -(-max(len(text.ids) for text in texts) // MULTIPLE) * MULTIPLE
    ids = torch.zeros((len(texts), longest), dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, longest - len(text.ids) :] = torch.tensor(text.ids)
    padding = torch.tensor([longest - len(text.ids) for text in texts])
    columns = zip(*(text.questions for text in texts), strict=True)
    return ItemBatch(ids, padding, tuple(_question(column) for column in columns))


def _question(rows: Sequence[tuple[list[int], int, list[int]]]) -> GridQuestion:
    width = max(len(ids) for ids, _, _ in rows)
    width = -(-width // MULTIPLE) * MULTIPLE
    parts = max(len(ends) for _, _, ends in rows)
    question = GridQuestion(
        torch.zeros((len(rows), width), dtype=torch.long),
        torch.zeros((len(rows), width), dtype=torch.bool),
        torch.full((len(rows), parts), -1),
    )
    for row, (ids, start, ends) in enumerate(rows):
        question.ids[row, : len(ids)] = torch.tensor(ids)
        question.ids[row, len(ids) :] = ids[-1]
        question.asks[row, start - 1 : len(ids) - 1] = True
        question.ends[row, : len(ends)] = torch.tensor(ends)
    return question


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = False) -> list[int]:
    return tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
