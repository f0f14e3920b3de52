"""Sequences that join and leave a batch say what each says alone."""

from typing import Any

import pytest

from kvpareto.planner.errors import BadInput
from kvpareto.runtime.generation.sampling import Sampling
from kvpareto.runtime.serving.queue import PromptRequest
from tests.support.runtime_builders import queued_as_alone, session, small_model

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [9, 4, 3], list(range(20, 40)), [12], [33, 2, 14, 15, 60]]
MOST = [6, 9, 3, 8, 5]
FORMATS = (
    "w16a16-k16v16",
    "w16a16-k8v8+pc64",
    "w16a16-k4v4-g32+rot",
    "w16a16-k8v8-kc+res64",
    "w16a16-k8v8+smooth",
)


def alone(model: Any, config: str, prompt: list[int], most: int) -> list[int]:
    with session(model, config, tokens=64) as run:
        return run.generate(prompt, most, stops=frozenset()).tokens[0]


@pytest.mark.cpu
@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("config", FORMATS)
def test_each_sequence_says_what_it_says_alone(kind: str, config: str) -> None:
    counts = queued_as_alone(small_model(kind), config, PROMPTS, MOST, tokens=64, batch=2)
    assert counts.joined >= 1
    assert counts.new_tokens == sum(MOST)
    assert counts.prompt_tokens == sum(map(len, PROMPTS))


@pytest.mark.cpu
def test_a_stop_token_frees_the_row_for_who_waits() -> None:
    model = small_model("llama")
    free = alone(model, "w16a16-k16v16", PROMPTS[0], 12)
    stop = free[3]
    with session(model, "w16a16-k16v16", tokens=64, batch=1) as run:
        run.stops = frozenset({stop})
        answers, _ = run.queue([PromptRequest(0, PROMPTS[0], 12), PromptRequest(1, PROMPTS[1], 2)])
        first, second = list(answers)
    assert first.stopped
    assert first.tokens == free[: free.index(stop) + 1]
    assert len(second.tokens) <= 2


@pytest.mark.cpu
def test_with_sinks_only_prompts_of_one_length_run_together() -> None:
    model, config = small_model("llama"), "w16a16-k4v4-g32+sink4"
    counts = queued_as_alone(model, config, PROMPTS, MOST, tokens=64, batch=2)
    # a row may be joined only where the batch has just as many tokens as the prompt
    assert counts.joined <= 1


@pytest.mark.cpu
def test_a_small_cache_begins_anew_as_often_as_it_must() -> None:
    queued_as_alone(small_model("llama"), "w16a16-k8v8", PROMPTS, MOST, tokens=22, batch=3)


def test_what_can_never_fit_is_refused_before_anything_runs() -> None:
    with session(small_model("llama"), "w16a16-k16v16", tokens=8, batch=2) as run:
        with pytest.raises(BadInput, match="request 1 has 7 tokens and asks for 3"):
            run.queue([PromptRequest(0, [5], 2), PromptRequest(1, PROMPTS[0], 3)])
        assert next(run.queue([PromptRequest(0, PROMPTS[0], 2)], Sampling())[0]).number == 0
