"""What holds of every answer, whatever the model: terms add up, more asks for more, and a bigger
budget is never worse used. Models, cards and configurations are drawn by a fixed seed.
"""

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from kvpareto import api
from kvpareto.planner.engines import find_engine
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.estimate import MemoryEstimate, estimate
from kvpareto.planner.models.bundled import bundled_models
from kvpareto.planner.workload import Workload

CARDS = (None, "H200", "4090", "L4", "T4")
CONFIGURATIONS = {
    "kvpareto": ("w16a16-k16v16", "w4a16-k4v4-g64+pc256", "w4a16-k2v2-kc+res128+pc512"),
    "transformers": ("w16a16-k16v16", "w16a16-k16v16+pc512"),
    "transformers-eager": ("w16a16-k16v16",),
    "llama.cpp": ("wQ4_K_M-kq8_0vq8_0", "wQ8_0-k16v16"),
}
AXES = {
    "context": [Workload(n, 64) for n in (1, 64, 500, 512, 4096, 4097, 32768, 131072)],
    "output": [Workload(3000, n) for n in (0, 1, 512, 5000)],
    "batch": [Workload(3000, 64, n) for n in (1, 2, 3, 17, 64)],
}
SHAPES = 0.01
"""Part of the total that a shorter prompt may take more: products of odd shapes have workspace of
their own, and a chunk of 500 rows more of it than one of 512."""


def _drawn(count: int) -> list[str]:
    return random.Random(20).sample(sorted(bundled_models()), count)


def _estimates(model: str, engine: str, config: str, axis: str, card: str | None) -> Iterator[
    MemoryEstimate
]:  # fmt: skip
    spec, gpu = load_model(model, offline=True), find_gpu(card) if card else None
    for work in AXES[axis]:
        try:
            yield estimate(spec, Configuration.parse(config), work, find_engine(engine), gpu)
        except BadInput:  # this engine does not run this model
            return


@pytest.mark.parametrize("engine", CONFIGURATIONS)
@pytest.mark.parametrize("model", _drawn(12))
def test_terms_add_up_and_more_takes_more(model: str, engine: str) -> None:
    card = random.Random(model).choice(CARDS)
    for config in CONFIGURATIONS[engine]:
        for axis in AXES:
            found = list(_estimates(model, engine, config, axis, card))
            for one in found:
                assert one.weights + one.kv + one.activation + one.overhead == one.total
                assert one.total_low <= one.total <= one.total_high
            for less, more in pairwise(found):
                least = 1 - SHAPES
                assert more.total >= least * less.total, (axis, config)
                assert more.total_high >= least * less.total_high, (axis, config)


@pytest.mark.parametrize("engine", ["kvpareto", "transformers", "llama.cpp"])
@pytest.mark.parametrize("model", _drawn(3))
def test_a_bigger_budget_is_never_worse_used(model: str, engine: str) -> None:
    """By the rule of choose.py: what promises as much as the best within what its own interval
    resolves is as good, so a promise may fall by that much and no more."""
    whole = api.estimate(model, "w16a16-k16v16", context="8k", offline=True)["memory"]["total"]
    best: tuple[float, float] | None = None
    for part in (0.25, 0.3, 0.4, 0.55, 0.7, 1.0, 1.2):
        budget = int(whole * part)
        try:
            plan = api.plan(model, budget=budget, context="8k", engine=engine, offline=True)
        except NothingFits:
            assert best is None, "it fits in less"
            continue
        chosen = plan["recommended"]
        low, retention = chosen["accuracy"]["low"], chosen["accuracy"]["retention"]
        assert chosen["memory"]["total_high"] <= budget
        if best is not None:
            assert low >= best[0] - max(0.01, retention - low, best[1] - best[0])
        best = max(best or (0.0, 0.0), (low, retention))
    assert best is not None
