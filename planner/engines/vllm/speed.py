"""How fast vLLM serves: first tokens, tokens after them, tokens a second, for users at once.

`users` prompts arrive together on an idle server. The steps that vLLM makes of them
(schedule.py) are timed one by one (step_time.py); what a user waits for is read off their sum.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from ....profiles import read
from ...engine import Ends
from ...errors import BadInput
from ...hardware.gpus import Hardware
from ...light_dataclass import dataclass
from ...models.spec import ModelSpec
from .schedule import schedule
from .settings import ServeSettings
from .step_time import Served, efficiencies_of, served, step_seconds


@dataclass(frozen=True, slots=True)
class ServingSpeed:
    """Seconds, and tokens a second; each expected, low and high.

    `ttft`: the first token of the `users` that arrive together, on average; `ttft_alone`: of one
    prompt on an idle server. `tpot`: between a user's tokens, on average. `tokens_per_second`:
    output tokens of all users over the whole time. `kind`: "fitted" to runs of this card
    with such formats, else "derived" from its datasheet.
    """

    ttft: Ends
    ttft_alone: Ends
    tpot: Ends
    tokens_per_second: Ends
    kind: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Mean TTFT and TPOT, and the time until the last token, seconds."""

    ttft: float
    tpot: float
    total: float


@dataclass(frozen=True, slots=True)
class Arrivals:
    """`users` prompts of `prompt` tokens at once, `output` tokens each; `at_once`: sequences that
    run together, the others wait."""

    users: int
    prompt: int
    output: int
    at_once: int


def serving_speed(
    spec: ModelSpec,
    settings: ServeSettings,
    hardware: Hardware,
    users: int,
    prompt: int,
    output: int,
    at_once: int | None = None,
) -> ServingSpeed:
    """What `users` see who send `prompt` tokens at once and take `output` tokens each.

    `hardware`: one card of those that the settings share the model among. `at_once`: sequences
    that the cache holds, where fewer than max_num_seqs. Raises BadInput.
    """
    profile = _profile()
    most = min(settings.max_num_seqs, at_once or settings.max_num_seqs)
    if min(users, prompt, output, most) < 1:
        raise BadInput("users, prompt and output are at least 1", "give whole numbers")
    replicas, stages = settings.data_parallel, settings.pipeline_parallel
    each = -(-users // replicas)
    model = served(spec, settings, hardware, _link(hardware, profile))
    alone = timing(model, profile["rates"], Arrivals(1, prompt, 1, 1)).ttft
    timings = timing(model, profile["rates"], Arrivals(each, prompt, output, most))
    fitted, (low, high) = _certainty(model, profile, stages)
    # A token passes every stage; stages work side by side where there are sequences enough.
    overlap = min(stages, each)

    def ends(seconds: float) -> Ends:
        return seconds, seconds * low / overlap, seconds * high

    tokens = users * output / timings.total
    return ServingSpeed(
        ttft=ends(timings.ttft),
        ttft_alone=ends(alone),
        tpot=ends(timings.tpot),
        tokens_per_second=(tokens * overlap**0.5, tokens / high, tokens / low * overlap),
        kind="fitted" if fitted else "derived",
    )


def timing(model: Served, rates: Mapping[str, float], asked: Arrivals) -> Timing:
    """The roofline's answer with these efficiencies."""
    most = min(asked.users, asked.at_once)
    chunk = model.settings.max_num_batched_tokens
    plan = schedule(asked.users, asked.prompt, asked.output, chunk, most)
    seconds = plan.count * step_seconds(model, plan, rates)
    ends = np.cumsum(seconds[plan.order]) + rates["request"]
    first, last = ends[plan.first], ends[plan.last]
    later = (last - first) / max(1, asked.output - 1)
    if asked.output == 1:  # nobody waits for a second token: what a step of all would take
        again = schedule(asked.users, asked.prompt, 2, chunk, most)
        later = step_seconds(model, again, rates)[again.order[again.last]]
    return Timing(float(first.mean()), float(later.mean()), float(ends[-1]))


def _certainty(
    model: Served, profile: dict[str, Any], stages: int
) -> tuple[bool, tuple[float, float]]:
    """Whether runs of such a card and such formats are behind it, and the ends of the interval:
    of models left out of the fit, wider for what was run with one model or not at all, widest for
    other cards."""
    names, measured = efficiencies_of(model), set(profile["measured"])
    run = stages == 1 and names <= measured
    if any(card in model.hardware.name for card in profile["fitted_on"]):
        if run:
            return True, profile["there"]
        once = stages == 1 and names <= measured | set(profile["measured_once"])
        classes = profile["once"]
        known = [ends for name, ends in classes.items() if name in names]
        tells = once or (stages == 1 and names <= measured | {*profile["measured_once"], *classes})
        if not tells or not known:
            return once, profile["untried"]
        return once, (min(low for low, _ in known), max(high for _, high in known))
    if run:
        near = any(card in model.hardware.name for card in profile["near"])
        return False, profile["beside" if near else "elsewhere"]
    both = profile["untried"], profile["elsewhere"]
    return False, (min(low for low, _ in both), max(high for _, high in both))


@lru_cache(maxsize=1)
def _profile() -> dict[str, Any]:
    profile: dict[str, Any] = json.loads(read("vllm/speed.json"))
    return profile


def _link(hardware: Hardware, profile: dict[str, Any]) -> float:
    """Bytes a second between cards: measured where it was, else what PCIe gives at least."""
    named = [rate for name, rate in profile["links"].items() if name in hardware.name]
    return float(named[0] if named else profile["links"]["other"])
