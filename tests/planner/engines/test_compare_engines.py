"""`--engine any`: every engine's plan or refusal, which is taken, and why the others are not."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvpareto import api
from kvpareto.cli import run
from kvpareto.planner.compare_engines import COMPARED, EnginePlan, _nearest, take
from kvpareto.planner.errors import BadInput, KVParetoError, NothingFits
from kvpareto.planner.search.recommend import Plan
from kvpareto.planner.search.request import Request

QWEN8, LLAMA70 = "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-70B-Instruct"


def plan(model: str, **words: Any) -> dict[str, Any]:
    return dict(api.plan(model, offline=True, **words))


def answer(
    engine: str,
    *,
    memory: int,
    seconds: float | None = None,
    low: float = 0.95,
    obstacle: str | None = None,
    objective: str = "accuracy",
) -> EnginePlan:
    """An engine whose plan has these numbers; `obstacle`: why it does not run where it is asked."""
    best = SimpleNamespace(
        seconds=seconds,
        placement=None,
        accuracy=SimpleNamespace(low=low),
        memory=SimpleNamespace(total_high=memory),
    )
    runs = SimpleNamespace(cannot_run=lambda spec, hardware: obstacle)
    request = SimpleNamespace(engine=runs, spec=None, hardware=None, objective=objective)
    return EnginePlan(engine, cast(Plan, SimpleNamespace(recommended=best, request=request)))


def test_without_seconds_the_least_memory_decides() -> None:
    answers = [answer("a", memory=9), answer("b", memory=7), answer("c", memory=5, low=0.8)]
    taken, because, why = take(answers)
    assert taken.engine == "b"
    assert because == "no engine's seconds are predicted here, so the least memory decides"
    assert why == {"a": "more memory", "c": "it would keep less"}


@pytest.mark.parametrize(
    ("objective", "taken", "because", "why"),
    [
        ("memory", "c", "the least memory", {"a": "more memory", "b": "more memory"}),
        (
            "latency",
            "b",
            "the fewest seconds for prompt and output",
            {"a": "more seconds", "c": "its seconds are not predicted"},
        ),
    ],
)
def test_another_objective_than_accuracy_decides_alone(
    objective: str, taken: str, because: str, why: dict[str, str]
) -> None:
    """Each engine's plan keeps enough, or it would be none."""
    answers = [
        answer("a", memory=9, seconds=2.0, low=0.99, objective=objective),
        answer("b", memory=7, seconds=1.0, low=0.91, objective=objective),
        answer("c", memory=5, low=0.92, objective=objective),
    ]
    found, said, others = take(answers)
    assert (found.engine, said, others) == (taken, because, why)


def test_seconds_decide_before_memory_and_memory_between_alike_ones() -> None:
    answers = [
        answer("a", memory=9, seconds=2.0),
        answer("b", memory=5, seconds=3.0),
        answer("c", memory=8, seconds=2.0),
        answer("d", memory=1),
    ]
    taken, _, why = take(answers)
    assert taken.engine == "c"
    assert why == {
        "a": "more memory",
        "b": "more seconds",
        "d": "its seconds are not predicted",
    }


def test_the_only_plan_is_taken_though_it_is_planned_only() -> None:
    none = EnginePlan("b", None, "no cache of that kind")
    taken, because, why = take([answer("a", memory=9, obstacle="it needs CUDA"), none])
    assert taken.engine == "a"
    assert because == "no other engine has a plan; planned only: it needs CUDA"
    assert why == {"b": "no cache of that kind"}


def short(needed: int, **details: Any) -> NothingFits:
    return NothingFits(f"needs {needed}", "fewer", {"needed_bytes": needed, **details})


@pytest.mark.parametrize(
    ("errors", "message", "engine"),
    [
        (
            [short(9, missing_bytes=2), short(7, missing_bytes=1), short(7, missing_bytes=1)],
            "needs 7; of the engines, b needs the least",
            "b",
        ),
        # One that lacks accuracy would do with fewer bytes, and is no answer to what is missing.
        ([short(3), short(8, missing_bytes=1)], "needs 8; of the engines, b needs the least", "b"),
        ([BadInput("no such card"), short(3)], "needs 3", None),
        ([BadInput("no such card"), BadInput("no such cache")], "no such card", None),
    ],
)
def test_of_refusals_that_of_the_engine_that_lacks_least_is_said(
    errors: list[KVParetoError], message: str, engine: str | None
) -> None:
    said = _nearest(list(zip("abc", errors, strict=False)))
    assert said.message == message
    assert said.details.get("engine") == engine
    if engine is not None:
        assert said.hint == f"fewer; each with --engine {engine}"


def test_a_refusal_for_memory_alone_names_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["plan", "-m", LLAMA70, "--engine", "any", "--gpu", "3060 8GB", "--context", "8k"]
    assert run([*line, "--offline"]) == 1
    said, hint = capsys.readouterr().err.splitlines()
    (named,) = (one for one in COMPARED if f"of the engines, {one} needs the least" in said)
    assert hint.endswith(f"each with --engine {named}")
    # Where accuracy is what lacks, no engine is the one that needs the least.
    words = ["--budget", "12GB", "--engine", "any", "--max-loss", "0.0001%", "--offline"]
    assert run(["plan", "-m", QWEN8, *words]) == 1
    assert "of the engines" not in capsys.readouterr().err


def test_engines_are_compared_and_one_is_taken() -> None:
    found = plan(QWEN8, engine="any", gpu="4090", context="8k", users=4)
    rows = {row["engine"]: row for row in found["compared"]}
    assert tuple(rows) == COMPARED
    (taken,) = (row for row in found["compared"] if row["taken"])
    assert taken["engine"] == found["engine"]
    assert taken["config"] == found["recommended"]["config"]
    timed = [
        row["ttft_s"] + found["output"] * row["tpot_s"]
        for row in found["compared"]
        if row["ttft_s"] is not None and row["low"] >= taken["low"] - 0.01
    ]
    assert taken["ttft_s"] + found["output"] * taken["tpot_s"] == min(timed)
    assert rows["sglang"]["ttft_s"] is None


def test_an_engine_without_a_plan_says_why() -> None:
    found = plan("Qwen/Qwen3-Next-80B-A3B-Instruct", engine="any", gpu="2xH200", context="8k")
    rows = {row["engine"]: row for row in found["compared"]}
    assert found["engine"] == "vllm"
    assert "fills one" in rows["kvpareto"]["why_not"]
    assert "windows, states" in rows["sglang"]["why_not"]
    with pytest.raises(NothingFits) as caught:
        plan(LLAMA70, engine="any", gpu="3060 8GB", context="8k")
    least = caught.value.details["needed_bytes"]
    for engine in COMPARED:
        with pytest.raises(NothingFits) as alone:
            plan(LLAMA70, engine=engine, gpu="3060 8GB", context="8k")
        assert least <= alone.value.details["needed_bytes"]
        if engine == caught.value.details["engine"]:
            assert least == alone.value.details["needed_bytes"]
            assert engine in caught.value.message


def test_a_budget_is_a_cards_before_it_is_the_processors() -> None:
    """Where no card is named the processor's plan is timed, and a prompt takes it minutes."""
    found = plan(QWEN8, engine="any", budget="12GB")
    rows = {row["engine"]: row for row in found["compared"]}
    assert rows["llama.cpp"]["ttft_s"] > 60
    assert found["engine"] == "kvpareto"
    assert "on the processor" in rows["llama.cpp"]["why_not"]
    host = plan(QWEN8, engine="any", ram="24GB")
    assert host["engine"] == "llama.cpp"


@pytest.mark.parametrize("gpu", ["M3 Max 64GB", "MI300X", "RX 7900 XTX"])
def test_a_plan_that_runs_is_taken_before_one_that_does_not(gpu: str) -> None:
    found = plan(QWEN8, engine="any", gpu=gpu, context="8k")
    rows = {row["engine"]: row for row in found["compared"]}
    assert found["engine"] == "llama.cpp"
    assert rows["llama.cpp"]["taken"]
    assert rows["llama.cpp"]["why_not"] is None
    assert "planned only" in rows["kvpareto"]["why_not"]
    assert rows["kvpareto"]["config"] is not None
    assert "is not planned" in rows["vllm"]["why_not"]


def test_every_engine_that_is_not_taken_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["plan", "-m", QWEN8, "--engine", "any", "--gpu", "H100", "--context", "8k", "--offline"]
    assert run([*line, "--json"]) == 0
    rows = {row["engine"]: row for row in json.loads(capsys.readouterr().out)["compared"]}
    assert rows["vllm"]["taken"]
    assert rows["llama.cpp"]["why_not"] == "more seconds"
    assert rows["sglang"]["why_not"] == "its seconds are not predicted"
    assert run(line) == 0
    assert "not taken: its seconds are not predicted" in capsys.readouterr().out


def test_an_engine_without_seconds_is_not_held_to_targets() -> None:
    with pytest.raises(BadInput, match=r"sglang's speed is not predicted.*--ttft and --tpot"):
        plan(QWEN8, engine="sglang", gpu="H100", context="8k", ttft="2s", tpot="30ms")
    with pytest.raises(BadInput, match=r"held to --tpot$"):
        plan(QWEN8, engine="sglang", gpu="H100", context="8k", tpot="1ms")
    found = plan(QWEN8, engine="any", gpu="H100", context="8k", tpot="30ms")
    rows = {row["engine"]: row for row in found["compared"]}
    assert "not predicted" in rows["sglang"]["why_not"]
    assert rows["sglang"]["config"] is None


def test_our_own_plan_is_made_for_the_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the engines' own plans: rows of the others show none of it."""
    from kvpareto.report.servers import own_runtime

    asked: list[str] = []
    recommend = own_runtime.recommend

    def counted(request: Request, *, explain: bool) -> Plan:
        asked.append(request.engine.name)
        return recommend(request, explain=explain)

    monkeypatch.setattr(own_runtime, "recommend", counted)
    found = plan(QWEN8, engine="any", gpu="H200", users=16)
    assert all(row["command"] for row in found["compared"])
    assert len(asked) <= 1
