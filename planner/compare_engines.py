"""`--engine any`: the same question to every engine, and which of their plans to take.

Plans that can run on the machine come before those that are planned only, and plans for a card
before those for the processor: where no card is named the budget is the memory of one, and a prompt
takes minutes on a processor. Among those that keep as much as the best one does (its interval's
lower end, within what a benchmark resolves) the one is taken whose seconds are the fewest; an
engine without seconds only where no other has any; then the one of the least memory. Where latency
or memory is the objective that alone decides, for each engine's plan keeps enough.
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

    @property
    def planned_only(self) -> str | None:
        """Why the engine cannot run its plan on the machine that was asked; None where it can."""
        if self.plan is None:
            return None
        asked = self.plan.request
        return asked.engine.cannot_run(asked.spec, asked.hardware)

    @property
    def on_processor(self) -> bool:
        """Whether nothing of its plan is on a card."""
        placement = self.plan.recommended.placement if self.plan is not None else None
        return placement is not None and placement.on_host_only


def compare_engines(model: str, **words: Unpack[PlanWords]) -> list[EnginePlan]:
    """The answers in the order of COMPARED. Raises what the first says where none has a plan."""
    answers: list[EnginePlan] = []
    errors: list[tuple[str, KVParetoError]] = []
    for engine in COMPARED:
        asked: PlanWords = {**words, "engine": engine}
        try:
            answers.append(EnginePlan(engine, plan_cards(model, **asked)))
        except (BadInput, NothingFits) as error:
            errors.append((engine, error))
            answers.append(EnginePlan(engine, None, error.message, error.hint))
    if len(errors) == len(COMPARED):
        raise _nearest(errors)
    return answers


def _nearest(errors: Sequence[tuple[str, KVParetoError]]) -> KVParetoError:
    """Of the engines' refusals that of the one that lacks least, and which one it is; where none
    lacks memory, the first."""
    short = [
        (error.details["needed_bytes"], i)
        for i, (_, error) in enumerate(errors)
        if error.details.get("missing_bytes") is not None  # others lack accuracy
    ]
    if not short:
        return next((e for _, e in errors if isinstance(e, NothingFits)), errors[0][1])
    engine, least = errors[min(short)[1]]
    return NothingFits(
        f"{least.message}; of the engines, {engine} needs the least",
        f"{least.hint}; each with --engine {engine}",
        {**least.details, "engine": engine},
    )


def take(answers: Sequence[EnginePlan]) -> tuple[EnginePlan, str, dict[str, str]]:
    """The answer to take, why, and why each of the others is not taken, by engine."""
    with_plan = [one for one in answers if one.plan is not None]
    runs = [one for one in with_plan if one.planned_only is None]
    able = runs or with_plan
    asked = [one for one in able if not one.on_processor] or able
    best = max(_low(one) for one in asked)
    objective = _objective(asked[0])
    keeping = objective == "accuracy"
    alike = [one for one in asked if not keeping or _low(one) >= best - NOISE]
    timed = [one for one in alike if one.seconds is not None]
    if objective == "memory":
        chosen, because = min(alike, key=_memory), "the least memory"
    elif timed:
        chosen = min(timed, key=lambda one: (one.seconds or 0.0, _memory(one)))
        because = "the fewest seconds for prompt and output"
        because += " of those that keep as much" * keeping
    else:
        chosen = min(alike, key=_memory)
        because = "no engine's seconds are predicted here, so the least memory decides"
    if len(with_plan) == 1:
        because = "no other engine has a plan"
    elif len(runs) == 1:
        because = "no other engine with a plan runs it there"
    elif len(asked) == 1 and len(able) > 1:
        because = "no other engine's plan is for a card"
    if not runs:
        because += f"; planned only: {chosen.planned_only}"
    least = best - NOISE if keeping else 0.0
    why = {one.engine: _why_not(one, chosen, least) for one in answers if one is not chosen}
    return chosen, because, why


def _why_not(one: EnginePlan, chosen: EnginePlan, least: float) -> str:
    if one.plan is None:
        return one.why_not
    if one.planned_only is not None and chosen.planned_only is None:
        return f"planned only: {one.planned_only}"
    if one.on_processor and not chosen.on_processor:
        return "all of it would run on the processor, and the budget is taken as a card's"
    if _low(one) < least:
        return "it would keep less"
    if _objective(chosen) == "memory":
        return "more memory"
    if one.seconds is None and chosen.seconds is not None:
        return "its seconds are not predicted"
    return "more memory" if one.seconds == chosen.seconds else "more seconds"


def _objective(one: EnginePlan) -> str:
    return one.plan.request.objective if one.plan is not None else "accuracy"


def _low(one: EnginePlan) -> float:
    return one.plan.recommended.accuracy.low if one.plan is not None else 0.0


def _memory(one: EnginePlan) -> int:
    return one.plan.recommended.memory.total_high if one.plan is not None else 0
