"""`--engine any`: the same question to every engine, and which of their plans to take.

Among plans that keep as much as the best one does (its interval's lower end, within what a
benchmark resolves) the one is taken whose seconds are the fewest; an engine without seconds only
where no other has any; then the one of the least memory.
"""

from collections.abc import Sequence
from typing import Unpack

from .errors import BadInput, KVParetoError, NothingFits
from .fewest_cards import plan_cards
from .light_dataclass import dataclass
from .search.recommend import Plan
from .search.tie_breaking import NOISE
from .typed_request import PlanWords

COMPARED = ("vllm", "sglang", "llama.cpp", "kvpareto")


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What one engine answers: a plan, or why there is none."""

    engine: str
    plan: Plan | None
    why_not: str = ""
    hint: str = ""

    @property
    def seconds(self) -> float | None:
        """Seconds for prompt and output, where they are predicted."""
        return self.plan.recommended.seconds if self.plan is not None else None


def compare_engines(model: str, **words: Unpack[PlanWords]) -> list[EnginePlan]:
    """The answers in the order of COMPARED. Raises what the first says where none has a plan."""
    answers: list[EnginePlan] = []
    errors: list[KVParetoError] = []
    for engine in COMPARED:
        asked: PlanWords = {**words, "engine": engine}
        try:
            answers.append(EnginePlan(engine, plan_cards(model, **asked)))
        except (BadInput, NothingFits) as error:
            errors.append(error)
            answers.append(EnginePlan(engine, None, error.message, error.hint))
    if len(errors) == len(COMPARED):
        fits = [error for error in errors if isinstance(error, NothingFits)]
        raise (fits or errors)[0]
    return answers


def take(answers: Sequence[EnginePlan]) -> tuple[EnginePlan, str]:
    """The answer to take, and why."""
    with_plan = [one for one in answers if one.plan is not None]
    best = max(_low(one) for one in with_plan)
    alike = [one for one in with_plan if _low(one) >= best - NOISE]
    timed = [one for one in alike if one.seconds is not None]
    if not timed:
        chosen = min(alike, key=_memory)
        return chosen, "no engine's seconds are predicted here, so the least memory decides"
    chosen = min(timed, key=lambda one: (one.seconds or 0.0, _memory(one)))
    others = [one for one in with_plan if one is not chosen]
    if not others:
        return chosen, "no other engine has a plan"
    lost = [one.engine for one in with_plan if one not in alike]
    because = "the fewest seconds for prompt and output of those that keep as much"
    if lost:
        because += f"; {' and '.join(lost)} would keep less"
    unknown = [one.engine for one in alike if one.seconds is None]
    if unknown:
        because += f"; the seconds of {' and '.join(unknown)} are not predicted"
    return chosen, because


def _low(one: EnginePlan) -> float:
    return one.plan.recommended.accuracy.low if one.plan is not None else 0.0


def _memory(one: EnginePlan) -> int:
    return one.plan.recommended.memory.total_high if one.plan is not None else 0
