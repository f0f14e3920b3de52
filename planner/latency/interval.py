"""How sure predicted seconds are: coefficients at both ends of the interval, by class of model.

An entry of profiles/hardware/latency.json has factors on the card's time, the host's and plans for
the GPU of its rows (`there`) and for others (`elsewhere`): `low` and `high` of prompts, `steps` the
same of steps, and `classes` what rows of one class of models say (model_class.py), each while its
model was left out of the fit. A class without rows has the ends of `untried`: how far classes were
off while no row of them was in the fit.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from ..engine import Engine
from ..hardware.gpus import Hardware
from ..hardware.measured import damaged, measured_on, path_of
from ..light_dataclass import dataclass
from ..models.spec import ModelSpec
from .efficiency import Coefficients, coefficients_of, load
from .model_class import PLAIN, UNTRIED, class_of

NO_RUNS = "none with such layers"

Trust = dict[str, Any]
"""`low` and `high` of prompts, and of `steps`."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of the interval: the coefficients of prompts, and those of steps."""

    prompts: Coefficients
    steps: Coefficients


@dataclass(frozen=True, slots=True)
class EfficiencyProfile:
    """Coefficients of an engine on a GPU: as predicted, and at both ends of the interval."""

    coefficients: Coefficients
    low: End
    high: End
    kind: str

    @property
    def ends(self) -> tuple[End, End, End]:
        """As predicted, at the low end, at the high end."""
        return End(self.coefficients, self.coefficients), self.low, self.high


_RATES = (
    "matmul", "stream", "attention", "attention_masked", "attention_packed", "attention_tiled",
    "attention_eight", "few_rows", "parts_rows", "wide_rows", "matmul_eight",
)  # fmt: skip
_CARD = (
    "card_layer", "card_launch", "card_segment", "tail_layer", "turn_layer",
    "latent_tile", "latent_split", "card_routed", "card_copy", "merge",
    "round",
)  # fmt: skip
_HOST = (
    "launch_decode", "launch_prefill", "launch_packed", "recurrent_call", "launch_piece",
    "launch_segment", "host_step", "step",
)  # fmt: skip


def profile_of(engine: Engine, hardware: Hardware, spec: ModelSpec) -> EfficiencyProfile:
    """The engine's coefficients on this GPU, with an interval for models like this one: fitted on
    this machine, or to the shipped runs of it, or carried over from another, wider. Raises BadInput
    for a damaged file of this machine's."""
    entry, of_model = measured_on(hardware.name).get("engines", {}).get(engine.name), class_of(spec)
    if entry is None:
        return _shipped(engine, hardware.name, of_model)
    try:
        # a fit by an older release knows nothing of what is newer: that is as shipped
        brought = load()[engine.name]
        known = brought["coefficients"] | entry["coefficients"]
        there = entry["there"]
        trust = there.get("classes", {}).get(of_model)
        if trust is None:  # this machine's runs say nothing of such layers
            trust = _wider(there, _of_class(brought["there"], of_model)[0])
        return _profile(known, trust, there["kind"])
    except (KeyError, TypeError):
        raise damaged(path_of(hardware.name)) from None


@lru_cache(maxsize=64)
def _shipped(engine: Engine, gpu: str, of_model: str) -> EfficiencyProfile:
    entry = load()[engine.name]
    trust, tried = _of_class(entry["there"], of_model)
    kind = "there" if gpu == entry["fitted_on"] else "elsewhere"
    if kind == "elsewhere":
        plain, _ = _of_class(entry["there"], PLAIN)
        trust = _carried(entry["elsewhere"], trust, plain)
    says = entry[kind]["kind"]
    return _profile(entry["coefficients"], trust, says if tried else f"{says}; {NO_RUNS}")


def _of_class(there: Trust, of_model: str) -> tuple[Trust, bool]:
    """What is known of a class, and whether runs of it are behind it; transformers' entries have no
    classes."""
    if "classes" not in there:
        return there, True
    found = there["classes"].get(of_model)
    return (there[UNTRIED], False) if found is None else (found, True)


def _carried(elsewhere: Trust, trust: Trust, plain: Trust) -> Trust:
    """`elsewhere` as much wider as this class is wider than the plain one on the fitted GPU."""

    def end(name: str, steps: bool) -> dict[str, float]:
        mine, usual = (_end(one, name, steps) for one in (trust, plain))
        base, limit = dict(_end(elsewhere, name, steps)), min if name == "low" else max
        for part in ("card", "host"):
            base[part] *= limit(1.0, mine[part] / usual[part])
        return base

    return _trust_of(end)


def _wider(one: Trust, other: Trust) -> Trust:
    """The hull of two."""

    def end(name: str, steps: bool) -> dict[str, float]:
        mine, theirs = _end(one, name, steps), _end(other, name, steps)
        limit = min if name == "low" else max
        return mine | {part: limit(mine[part], theirs[part]) for part in ("card", "host")}

    return _trust_of(end)


def _trust_of(end: Any) -> Trust:
    steps = {name: end(name, True) for name in ("low", "high")}
    return {name: end(name, False) for name in ("low", "high")} | {"steps": steps}


def _end(trust: Trust, name: str, steps: bool) -> dict[str, float]:
    found: dict[str, float] = trust.get("steps", trust)[name] if steps else trust[name]
    return found


def _profile(values: dict[str, Any], trust: Trust, kind: str) -> EfficiencyProfile:
    coefficients = coefficients_of(values)
    low, high = (
        End(*(_moved(coefficients, _end(trust, name, steps)) for steps in (False, True)))
        for name in ("low", "high")
    )
    return EfficiencyProfile(coefficients, low, high, kind)


def _moved(c: Coefficients, end: dict[str, float]) -> Coefficients:
    """One end of the interval: factors on the card's time, on the host's and on plans, and the
    seconds that only a first call takes. No rate exceeds the datasheet's."""
    changed: dict[str, Any] = {name: min(1.0, getattr(c, name) / end["card"]) for name in _RATES}
    changed |= {name: getattr(c, name) * end["card"] for name in _CARD}
    changed |= {name: getattr(c, name) * end["host"] for name in _HOST}
    changed |= {"plan": c.plan * end["plan"]}
    changed |= {name: end.get(name, 0.0) for name in ("plan_decode", "first_call")}
    return replace(c, **changed)
