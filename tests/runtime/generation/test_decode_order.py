"""On a CPU a token is handed on before the next pass runs, and none runs after a stop token."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kvpareto.runtime.generation.decode import decode
from kvpareto.runtime.generation.sampling import GREEDY

VOCABULARY = 8


def scores(token: int, batch: int = 1) -> Tensor:
    return torch.nn.functional.one_hot(torch.full((batch,), token), VOCABULARY).float()


def counting(passes: list[int]) -> Any:
    """A forward pass whose choice is the token after the one that it is given."""

    def forward(tokens: Tensor) -> Tensor:
        passes.append(int(tokens[0, 0]))
        return scores(passes[-1] + 1, tokens.shape[0])

    return forward


def begin(passes: list[int], count: int, stops: frozenset[int]) -> Iterator[list[int]]:
    return decode(counting(passes), scores(1), count, GREEDY, stops)


def test_the_first_token_waits_for_no_further_pass() -> None:
    passes: list[int] = []
    tokens = begin(passes, 3, frozenset())
    assert (next(tokens), passes) == ([1], [])
    assert (next(tokens), passes) == ([2], [1])
    assert (next(tokens), passes) == ([3], [1, 2])
    assert list(tokens) == []
    assert passes == [1, 2]  # the last token is given to no pass


def test_nothing_runs_after_a_stop_token() -> None:
    passes: list[int] = []
    assert list(begin(passes, 6, frozenset({3}))) == [[1], [2], [3]]
    assert passes == [1, 2]
