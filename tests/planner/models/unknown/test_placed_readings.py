"""A model that is not understood, placed by llama.cpp: the interval holds every reading."""

import pytest

from kvpareto.planner.engines.llama_cpp import LLAMA_CPP
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.placement import Machine
from kvpareto.planner.search.placed.table import place
from kvpareto.planner.workload import Workload
from tests.planner.models.unknown.newcomers import PLAIN

Q4 = Configuration.parse("wQ4_K_M-kf16vf16")
# It is not said how many layers have experts.
UNKNOWN = PLAIN | {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 1024}


@pytest.mark.parametrize("budgets", [(24 * 10**9,), ()], ids=["a card", "the processor"])
def test_ends_hold_every_reading(budgets: tuple[int, ...]) -> None:
    spec = read_model(UNKNOWN, "newcomer")
    assert spec.readings
    machine = Machine((), budgets, ram=32 * 10**9)
    asked = Q4, Workload(8192, 512), machine
    alone = [LLAMA_CPP.place(one, *asked) for one in (spec, *spec.ends)]
    placed = place(LLAMA_CPP, spec, *asked)
    assert placed.device_ends[0] == min(one.device_ends[0] for one in alone)
    assert placed.device_ends[1] == max(one.device_ends[1] for one in alone)
    assert placed.device_ends[1] > 1.2 * alone[0].device_ends[1]
    assert placed.command == alone[0].command


def test_it_fits_where_its_largest_reading_does() -> None:
    spec = read_model(UNKNOWN, "newcomer")
    workload, host = Workload(8192, 512), 250 * 10**6  # the token table, not the difference
    roomy = Machine((), (24 * 10**9,), ram=host)
    shown = LLAMA_CPP.place(spec, Q4, workload, roomy).needed
    largest = place(LLAMA_CPP, spec, Q4, workload, roomy).needed
    for budget, fits in ((largest, True), ((shown + largest) // 2, False)):
        machine = Machine((), (budget,), ram=host)
        assert LLAMA_CPP.place(spec, Q4, workload, machine).fits
        assert place(LLAMA_CPP, spec, Q4, workload, machine).fits is fits
