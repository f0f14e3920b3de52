"""Tokens of what samples are made of, looked up once: phrases, names, numbers, filler sentences.

The tokenizer cuts text only where one kind of piece meets another, so tokens of parts put side by
side are the tokens of the whole; tests hold samples to the real tasks' text.
"""

from functools import cached_property
from string import ascii_uppercase
from typing import Any

from numpy.random import Generator
from transformers import PreTrainedTokenizerBase

from ... import profiles
from ..tasks.haystack import bundled_haystack
from ..tasks.words import ADJECTIVES, NOUNS


class Words:
    """Everything by token numbers. `rng` is numpy's."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._phrases: dict[str, list[int]] = {}
        (self.stop,), (self.comma,) = self("."), self(",")
        (self.line,), (self.gap,) = self("\n"), self("\n\n")
        self.end = tokenizer.eos_token_id
        self.adjectives = [self._whole(f" {word}-")[0] for word in ADJECTIVES]
        self.nouns = [self._whole(word)[0] for word in NOUNS]
        self.digits = [self(f" {digit}") + self(f"{digit}") for digit in "0123456789"]
        tens = [f"{n:02d}" for n in range(100)]
        self.pairs = [self._whole(f" {pair}") + self._whole(pair) for pair in tens]
        letters = [a + b for a in ascii_uppercase for b in ascii_uppercase]
        self.letters = [self._whole(f" {pair}") + self._whole(pair) for pair in letters]
        self.letter = [self._whole(letter)[0] for letter in ascii_uppercase]

    def __call__(self, text: str) -> list[int]:
        """A phrase's tokens."""
        ids = self._phrases.get(text)
        if ids is None:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            self._phrases[text] = ids
        return ids

    def _whole(self, word: str) -> list[int]:
        token: Any = self.tokenizer.convert_tokens_to_ids(word)
        return [token]

    def names(self, rng: Generator, count: int) -> list[list[int]]:
        """Different names such as ` amber-lantern`."""
        places = distinct(rng, 0, len(self.adjectives) * len(self.nouns), count)
        pairs = (divmod(place, len(self.nouns)) for place in places)
        return [[self.adjectives[first], self.nouns[second]] for first, second in pairs]

    def variables(self, rng: Generator, count: int) -> list[list[int]]:
        """Different names of five capitals."""
        parts = []
        for code in distinct(rng, 0, 26**5, count):
            rest, last = divmod(code, 26)
            first, second = divmod(rest, 676)
            parts.append([self.letters[first][0], self.letters[second][1], self.letter[last]])
        return parts

    def number(self, value: int) -> list[int]:
        """A number behind a space."""
        text = str(value)
        if len(text) < 4:
            return [self.digits[int(d)][place > 0] for place, d in enumerate(text)]
        ids = [self.pairs[int(text[at : at + 2])][at > 0] for at in range(0, len(text) - 1, 2)]
        return [*ids, self.digits[int(text[-1])][1]] if len(text) % 2 else ids

    def listed(self, entries: list[list[int]]) -> list[int]:
        """Entries with commas between them and a full stop."""
        ids = list(entries[0])
        for entry in entries[1:]:
            ids += [self.comma, *entry]
        return [*ids, self.stop]

    def at_line_start(self, ids: list[int]) -> list[int]:
        """The same tokens without the space before the first."""
        first: Any = self.tokenizer.convert_ids_to_tokens(ids[0])
        return [*self(first.removeprefix(" ")), *ids[1:]]

    @cached_property
    def sentences(self) -> list[list[int]]:
        """Each filler sentence's tokens, behind a space."""
        return [self(f" {text}") for text in bundled_haystack().sentences]

    @cached_property
    def calibration_text(self) -> list[int]:
        return self(profiles.read("calibration_text.md"))

    def filler(self, rng: Generator, tokens: int) -> list[list[int]]:
        """Sentences in a shuffled order, with `tokens` tokens in all behind a space, the last one
        cut at a word and ended with a full stop."""
        taken: list[list[int]] = []
        while True:
            for place in rng.permutation(len(self.sentences)).tolist():
                sentence = self.sentences[place]
                if len(sentence) >= tokens:
                    if tokens:
                        taken.append([*sentence[: tokens - 1], self.stop])
                    return taken
                taken.append(sentence)
                tokens -= len(sentence)


def distinct(rng: Generator, low: int, high: int, count: int) -> list[int]:
    """Different whole numbers from low up to, not including, high."""
    numbers: dict[int, None] = {}
    while len(numbers) < count:
        numbers.update(dict.fromkeys(rng.integers(low, high, count - len(numbers)).tolist()))
    return list(numbers)
