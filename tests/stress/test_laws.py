"""Laws that hold between answers to near questions, on hundreds of questions drawn by a seed.

    python -m pytest -m slow -s tests/stress/test_laws.py

More budget, cards, host memory or accepted loss never ends in a refusal or, where accuracy is
asked for, in a worse prediction; more users or context never ends one; more bits keep no less; and
what a refusal offers is what then fits. `broken(law, seed)` gives a question again.
"""

import random
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from kvpareto import api
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.bundled import bundled_models

DRAWS = 150
CARDS = ("4090", "RTX 3060 12GB", "L4", "H100 SXM5 80GB", "H200", "RTX 4060", "T4", "B200")
RESOLVED = 0.011
"""Of a prediction: what choose.py takes for alike (NOISE), and rounding."""
Answer = dict[str, Any] | NothingFits | BadInput


def answer(function: Callable[..., Any], *words: str, **named: Any) -> Answer:
    try:
        found: dict[str, Any] = function(*words, offline=True, **named)
    except (NothingFits, BadInput) as error:
        return error
    return found


def question(draw: random.Random) -> dict[str, Any]:
    """A model, a length, a batch and a budget about its size, for an engine that fills one
    device."""
    model = draw.choice(bundled_models())
    whole = load_model(model, offline=True).parameters
    return {
        "model": model,
        "engine": draw.choice(["kvpareto", "kvpareto", "llama.cpp", "transformers"]),
        "context": draw.choice([7, 100, 512, 2049, 8192, 32768]),
        "output": draw.choice([1, 128, 513]),
        "batch": draw.choice([1, 1, 1, 2, 4]),
        "budget": int(whole * draw.uniform(0.4, 1.6) + draw.uniform(0.5, 3.0) * 10**9),
    }


def plans(asked: dict[str, Any], **axis: list[Any]) -> list[Answer]:
    """Plans of one question, with one of its words varied."""
    ((name, values),) = axis.items()
    words = {k: v for k, v in asked.items() if k != "model"}
    return [answer(api.plan, asked["model"], **(words | {name: value})) for value in values]


def never_refused_again(answers: list[Answer]) -> Iterator[str]:
    for less, more in pairwise(answers):
        if isinstance(less, dict) and isinstance(more, NothingFits):
            yield f"refused with more: {more.message}"


def predicted(found: dict[str, Any]) -> float:
    """The lowest prediction of the kinds that decide."""
    kinds = found["recommended"]["accuracy"]["tasks"]
    return min(kinds[kind]["retention"] for kind in ("reasoning", "long_reasoning", "retrieval"))


def more_budget(draw: random.Random) -> Iterator[str]:
    asked = question(draw)
    sizes = [int(asked["budget"] * part) for part in (1, 1.05, 1.2, 1.5)]
    answers = plans(asked, budget=sizes)
    yield from never_refused_again(answers)
    for size, found in zip(sizes, answers, strict=True):
        if isinstance(found, dict) and found["recommended"]["memory"]["total_high"] > size:
            yield f"{asked}: more than its budget of {size}"
    planned = [found for found in answers if isinstance(found, dict)]
    best = 0.0
    for found in planned:
        if predicted(found) < best - RESOLVED:
            yield f"{asked}: {found['recommended']['config']} keeps less with more memory"
        best = max(best, predicted(found))


def more_loss(draw: random.Random) -> Iterator[str]:
    asked = question(draw)
    losses = ["0.5%", "2%", "10%", "30%"]
    answers = plans(asked, max_loss=losses)
    yield from never_refused_again(answers)
    for loss, found in zip(losses, answers, strict=True):
        if isinstance(found, dict):
            kept = found["recommended"]["accuracy"]["low"]
            if kept < 1 - float(loss.rstrip("%")) / 100 - 1e-9:
                yield f"{asked}: keeps {kept} at {loss}"


def less_to_hold(draw: random.Random) -> Iterator[str]:
    asked = question(draw)
    for message in never_refused_again(plans(asked, context=[32768, 8192, 2048, 512])):
        yield f"{asked}: {message}"
    for message in never_refused_again(plans(asked, batch=[16, 4, 2, 1])):
        yield f"{asked}: {message}"


def more_hardware(draw: random.Random) -> Iterator[str]:
    asked = question(draw) | {"batch": 1, "budget": None}
    card = draw.choice(CARDS)
    host = asked | {"engine": "llama.cpp", "gpu": card}
    for message in never_refused_again(plans(host, ram=["8GB", "32GB", "128GB"])):
        yield f"{host}: {message}"
    served = asked | {"engine": draw.choice(["vllm", "sglang", "llama.cpp"])}
    for message in never_refused_again(plans(served, gpu=[f"{n}x{card}" for n in (1, 2, 4)])):
        yield f"{served}: {message}"


def more_bits(draw: random.Random) -> Iterator[str]:
    asked = question(draw) | {"engine": "kvpareto"}
    tail = draw.choice(["", "-g64", "-kc"]) + draw.choice(["", "+smooth", "+rot", "+smooth+rot"])
    weights, keys, values = (
        draw.choice([16, 8, 4]),
        draw.choice([2, 3, 4, 8]),
        draw.choice([2, 4, 8]),
    )
    ladders = {
        "weights": [f"w{n}a16-k{keys}v{values}{tail}" for n in (4, 8, 16)],
        "keys": [f"w{weights}a16-k{n}v{values}{tail}" for n in (2, 3, 4, 5, 6, 8)],
        "values": [f"w{weights}a16-k{keys}v{n}{tail}" for n in (2, 3, 4, 5, 6, 8)],
    }
    words = {k: asked[k] for k in ("context", "output", "batch")}
    for name, ladder in ladders.items():
        found = [answer(api.estimate, asked["model"], one, **words) for one in ladder]
        known = [one for one in found if isinstance(one, dict)]
        if any(one["accuracy"]["provenance"] == "calibrated" for one in known):
            return  # runs of a format speak for it alone, and may say less than its neighbours are
        for less, more in pairwise(known):
            kinds = less["accuracy"]["tasks"], more["accuracy"]["tasks"]
            fewer = [
                k for k in kinds[0] if kinds[1][k]["retention"] < kinds[0][k]["retention"] - 1e-4
            ]
            if fewer:
                yield f"{asked}: {more['config']} below {less['config']} ({name}, {fewer})"


def what_is_offered(draw: random.Random) -> Iterator[str]:
    asked = question(draw)
    words = {k: v for k, v in asked.items() if k != "model"}
    refused = answer(api.plan, asked["model"], **words)
    if not isinstance(refused, NothingFits):
        return
    for word, pattern in (
        ("budget", r"a budget of ([\d.]+[A-Z]+)"),
        ("context", r"--context (\d+)"),
        ("batch", r"--batch (\d+)"),
        ("max_loss", r"--max-loss ([\d.]+%)"),
    ):
        offered = re.search(pattern, refused.hint)
        if offered:
            again = answer(api.plan, asked["model"], **(words | {word: offered[1]}))
            if not isinstance(again, dict):
                yield f"{asked}: {word} {offered[1]} does not do: {again.message}"


LAWS = (more_budget, more_loss, less_to_hold, more_hardware, more_bits, what_is_offered)


def broken(law: Callable[[random.Random], Iterator[str]], seed: int) -> list[str]:
    """What breaks the law in the question of a seed."""
    return list(law(random.Random(seed)))


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_near_questions_have_answers_in_order(law: Callable[..., Iterator[str]]) -> None:
    found = {seed: messages for seed in range(DRAWS) if (messages := broken(law, seed))}
    for seed, messages in found.items():
        print(seed, *messages, sep="\n  ")
    assert not found
