"""One shot or chunks: what chunks of the same formats must do to be taken."""

from dataclasses import replace

import numpy as np
import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.search.choose import choose
from kvpareto.planner.search.placed.questions import requested_point
from kvpareto.planner.search.point_arrays import PointArrays
from kvpareto.planner.search.recommend import Request, recommend
from kvpareto.planner.workload import Workload

GB = 10**9
POINTS = PointArrays(
    memory=np.array([100, 80, 99]),
    low=np.full(3, 0.95),
    retention=np.full(3, 0.97),
    ttft=np.ones(3),
    tpot=np.ones(3),
    time=np.ones(3),
    complexity=np.array([2, 3, 9]),
    allowed=np.ones(3, dtype=bool),
    usual=np.ones(3, dtype=bool),
)
"""One shot, the same in chunks, and another format."""


def chosen(points: PointArrays) -> tuple[int, int]:
    choice = choose(points, np.ones(3, dtype=bool), "accuracy", 0.1)
    assert choice is not None
    return choice.index, choice.saved


def test_chunks_that_cost_nothing_are_taken(qwen: Request) -> None:
    asked = Request(qwen.spec, Workload(32_768), KVPARETO, 24 * GB, find_gpu("4090"), tpot=0.010)
    plan = recommend(asked)
    best = plan.recommended
    one_shot = requested_point(asked, replace(best.config, chunk=None), asked.workload)
    assert best.config != one_shot.config
    assert best.memory.total_high * 1.2 < one_shot.memory.total_high < asked.budget
    assert one_shot.latency is not None
    assert best.latency is not None
    assert best.latency.ttft_s <= one_shot.latency.ttft_s
    assert best.latency.tpot_s <= one_shot.latency.tpot_s
    assert any("in chunks that need" in reason for reason in plan.reasons)


@pytest.mark.parametrize(
    ("column", "worse"),
    [("tpot", 1.01), ("ttft", 1.01), ("low", 0.94), ("complexity", 4), ("memory", 99)],
)
def test_chunks_that_cost_anything_are_not(column: str, worse: float) -> None:
    assert chosen(POINTS) == (1, 20)
    changed = getattr(POINTS, column).copy()
    changed[1] = worse
    assert chosen(replace(POINTS, **{column: changed})) == (0, 0)
