"""Rates of llama.cpp on a processor, held to what is said of processors that nobody measured.

The rows are profiles/llama_cpp/speed_cpu.jsonl (benchmarks/llama_cpp/cpu_speed.py): one thread of a
server's processor, in that core's own time.
"""

import json

from kvpareto import profiles
from kvpareto.planner.engines.llama_cpp.speed import (
    HOST_BANDWIDTH,
    HOST_FLOPS,
    active_parameters,
)
from kvpareto.planner.models.read_config import read_model

KNOWN, *ROWS = [
    json.loads(line) for line in profiles.read("llama_cpp/speed_cpu.jsonl").splitlines()
]
SPECS = {name: read_model(config, name) for name, config in KNOWN["shapes"].items()}
CORES = 2, 8, 14
"""Of processors that the interval is for: a small laptop's, a desktop's, a large desktop's."""


def operations(row: dict[str, float | str]) -> float:
    """Operations a second of prompts on one core, attention and the head aside."""
    return 2 * active_parameters(SPECS[str(row["shape"])]) * float(row["prompt_per_s"])


def test_the_rows_are_there() -> None:
    assert len(ROWS) >= 7
    assert {row["weights"] for row in ROWS} == {"F16", "Q8_0", "Q6_K", "Q4_K"}
    assert {row["shape"] for row in ROWS} == {"llama", "experts"}


def test_prompts_on_2_to_14_such_cores_are_inside() -> None:
    expected, low, high = HOST_FLOPS
    dense = [operations(row) for row in ROWS if row["shape"] == "llama"]
    for cores in CORES:
        for one in dense:
            assert low <= cores * one <= high
    # Eight cores at the slowest type, 16-bit weights: what is expected, within a tenth.
    assert abs(min(dense) * CORES[1] / expected - 1) < 0.1


def test_a_few_cores_read_what_a_desktop_can() -> None:
    """Dense rows: a token reads the file but its token table; two to four cores fill the memory."""
    for row in ROWS:
        if row["shape"] == "llama":
            read = float(row["bytes"]) * 0.86 * float(row["predicted_per_s"])
            assert HOST_BANDWIDTH[0] / 4 <= read <= HOST_BANDWIDTH[0]
