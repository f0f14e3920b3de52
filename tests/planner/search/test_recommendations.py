"""The golden table: what is recommended for sixty questions, and what an expert would hold against
any of it."""

from typing import Any

import pytest

from kvpareto.planner.formats.configuration import Configuration
from tests.support.recommendations import FILE, Question, answer, questions, read

REWRITE = "PYTHONPATH=.. python tests/support/recommendations.py --write"
GOLDEN = read()


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    return [answer(question) for question in questions()]


def test_the_golden_table_says_what_is_recommended(answers: list[dict[str, Any]]) -> None:
    changed = []
    for question, now, line in zip(questions(), answers, GOLDEN, strict=True):
        asked = {name: line.pop(name) for name in Question.__dataclass_fields__}
        assert Question(**asked) == question
        moved = {k: (line.get(k), now.get(k)) for k in {**line, **now} if line.get(k) != now.get(k)}
        if moved:
            told = ", ".join(f"{k}: {old} -> {new}" for k, (old, new) in moved.items())
            changed.append(f"  {' '.join(str(v) for v in asked.values() if v)}: {told}")
    assert not changed, (
        f"{len(changed)} of {len(GOLDEN)} answers changed:\n"
        + "\n".join(changed)
        + f"\nif that is meant, say why and run: {REWRITE} (writes {FILE.name})"
    )


def test_sixty_questions_of_twenty_models_are_asked() -> None:
    asked = questions()
    assert len(asked) == len(set(asked)) == 60
    assert len({question.model for question in asked}) == 20


def test_nothing_is_recommended_that_an_expert_would_warn_against(
    answers: list[dict[str, Any]],
) -> None:
    unlike = 0
    for found in answers:
        if found["recommended"] is None:
            continue
        config = Configuration.parse(found["recommended"])
        assert found["at_least"] >= 90.0, found
        assert min(config.k_bits, config.v_bits) >= 4, found
        assert config.chunk is None or 512 <= config.chunk <= 4096, found
        unlike += config.k_bits != config.v_bits
    assert unlike <= 3


def test_what_is_not_safe_says_what_would_be(answers: list[dict[str, Any]]) -> None:
    refused = [found for found in answers if found["recommended"] is None]
    assert 3 <= len(refused) <= 12
    for question, found in zip(questions(), answers, strict=True):
        if found["recommended"] is None:
            assert found["needs_gb"] > float(question.budget.removesuffix("GB"))
