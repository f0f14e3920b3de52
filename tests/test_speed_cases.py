"""What benchmarks/bench_speeds.py runs: a card holds it, and the rows that ship are of it."""

import json
import sys
from pathlib import Path

import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.workload import Workload
from kvpareto.profiles import read

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NEIGHBOURS = [path.stem for path in BENCHMARKS.glob("bench_*.py")]


def test_a_card_holds_every_case_and_shipped_rows_are_of_cases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench_speeds

    for name in [n for n in sys.modules if n.split(".")[0] in ("layers", *NEIGHBOURS)]:
        del sys.modules[name]  # bare names, which are nobody else's
    cases = list(bench_speeds.cases())
    keys = {case.key for case in cases}
    assert len(keys) == len(cases)
    room = find_gpu("H200").memory_bytes
    for case in cases:
        spec = read_model(bench_speeds.content_of(case.model)[1], case.model)
        work = Workload(case.context, bench_speeds.OUTPUT, batch=case.batch)
        assert estimate(spec, case.config, work, KVPARETO, None).total < 0.9 * room, case.key
    rows = map(json.loads, read("hardware/latency_h200_kvpareto.jsonl").splitlines())
    timed = [x for x in rows if x["time"] >= "2026-11-29T09:40"]
    assert len(timed) == 92
    assert {(x["model"], x["config"], x["batch"], x["context"]) for x in timed} <= keys
