"""Where nothing fits, or nothing is safe: how much is missing, and what would do."""

import json
import re
from dataclasses import replace

import pytest

from kvpareto.api import plan
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.errors import NothingFits
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.search import longest_safe
from kvpareto.planner.search.infeasible import SHORT, STEP
from kvpareto.planner.search.max_context import max_contexts
from kvpareto.planner.search.placed.questions import Table, evaluate_request
from kvpareto.planner.search.recommend import Request, recommend
from kvpareto.planner.units import format_bytes, parse_bytes, parse_fraction
from kvpareto.planner.workload import Workload
from kvpareto.profiles import read

GB = 10**9


@pytest.mark.parametrize(("loss", "how"), [(0.0, "-risk without --max-loss"), (0.02, "-risk, to")])
def test_a_risk_is_offered_as_it_can_be_taken(qwen: Request, loss: float, how: str) -> None:
    """With --max-loss the prediction has to hold."""
    asked = replace(qwen, workload=Workload(32_256, 512), budget=12 * GB, max_loss=loss)
    with pytest.raises(NothingFits) as caught:
        recommend(asked)
    assert how in caught.value.hint
    taken = replace(asked, max_loss=None if "without" in how else loss, accept_risk=True)
    assert recommend(taken).recommended.accuracy.low < 1 - loss


def test_nothing_fits_says_by_how_much_and_what_would(qwen: Request) -> None:
    tight = replace(qwen, workload=Workload(131_072, 512, batch=4), budget=8 * GB)
    with pytest.raises(NothingFits) as caught:
        recommend(tight)
    error = caught.value
    assert error.exit_code == 1
    missing = int(str(error.details["needed_bytes"])) - 8 * GB
    assert error.details["missing_bytes"] == missing > 0
    assert f"{format_bytes(missing)} more than the budget of 8.00 GB" in error.message
    assert "a GPU that gives programs" in error.hint
    context = int(error.hint.split("--context ")[1].split()[0])
    config = Configuration.parse(error.message.split("configuration, ")[1].split(", needs")[0])

    def high(tokens: int) -> int:
        workload = replace(tight.workload, context=tokens)
        return memory.estimate(qwen.spec, config, workload, qwen.engine, qwen.hardware).total_high

    assert high(context) <= 8 * GB < high(context + 1)


def test_a_smaller_batch_is_offered_where_it_helps(qwen: Request) -> None:
    tight = replace(qwen, workload=Workload(65_536, 512, batch=8))
    with pytest.raises(NothingFits, match="more than the budget") as caught:
        recommend(tight)
    batch = int(caught.value.hint.split("--batch ")[1].split(";")[0])
    assert 1 <= batch < 8
    assert recommend(replace(tight, workload=Workload(65_536, 512, batch=batch))).fits


@pytest.mark.parametrize("option", ["batch", "users"])
@pytest.mark.parametrize("engine", ["kvpareto", "vllm"])
def test_hints_name_the_option_that_was_typed(option: str, engine: str) -> None:
    words = {option: "4096", "engine": engine, "gpu": "4090", "offline": True}
    with pytest.raises(NothingFits) as caught:
        plan("Qwen/Qwen3-8B", **words)
    assert caught.value.hint.startswith(f"this would fit: --{option} ")
    with pytest.raises(NothingFits) as caught:
        plan("Qwen/Qwen3-8B", **words | {option: "4", "ttft": "1ms"})
    assert {"batch": "a smaller batch", "users": "fewer users"}[option] in caught.value.hint


def test_many_users_are_offered_fewer_first_and_no_context_that_helps_nobody(
    qwen: Request,
) -> None:
    crowd = replace(qwen, budget=24 * GB, workload=Workload(32_768, 512, batch=256))
    with pytest.raises(NothingFits) as caught:
        recommend(crowd)
    assert caught.value.hint.startswith("this would fit: --batch ")
    for batch in (4, 16, 64, 256, 4096):
        asked = replace(crowd, workload=Workload(32_768, 512, batch=batch))
        with pytest.raises(NothingFits) as caught:
            recommend(replace(asked, budget=9 * GB))
        offered = caught.value.details["would_fit"]["context"]
        assert offered is None or offered >= SHORT
        assert ("--context" in caught.value.hint) == (offered is not None)


def test_a_search_for_a_context_that_is_not_there_is_short(
    qwen: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(request: Request) -> Table:
        asked.append(request.workload.context)
        return evaluate_request(request)

    monkeypatch.setattr(longest_safe, "evaluate_request", counted)
    crowd = replace(qwen, workload=Workload(32_768, 512, batch=65_536))
    assert longest_safe.longest_safe(crowd, 32_767) == (None, None)
    assert len(asked) == 2


def test_a_loss_that_cannot_be_kept_within_the_budget_names_the_loss_that_can(
    qwen: Request,
) -> None:
    strict = replace(qwen, budget=11 * GB, max_loss=0.005)
    with pytest.raises(NothingFits, match=r"keeps 99\.5% of") as caught:
        recommend(strict)
    larger = parse_fraction(caught.value.hint.split("--max-loss ")[1].split(";")[0])
    assert recommend(replace(strict, max_loss=larger)).safe


def test_what_is_not_safe_names_the_sequences_that_would_be() -> None:
    """A server of 64 users on one small card: its remedy is fewer at once, not another card."""
    asked = {"engine": "vllm", "gpu": "L4", "context": "4k", "offline": True}
    with pytest.raises(NothingFits, match="nothing is safe here") as caught:
        plan("Qwen/Qwen3-8B", users=64, **asked)
    users = caught.value.details["safe_batch"]
    assert f"--users {users}, for {caught.value.details['needed_config']}" in caught.value.hint
    assert plan("Qwen/Qwen3-8B", users=users, **asked)["safe"]
    with pytest.raises(NothingFits):
        plan("Qwen/Qwen3-8B", users=2 * users, **asked)


def test_what_is_not_safe_is_named_with_what_would_be() -> None:
    """What keeps too little at its worst is not recommended, however much it keeps on average."""
    spec = load_model("Qwen/Qwen3-14B", offline=True)
    request = Request(spec, Workload(16_384), KVPARETO, 12 * GB)
    with pytest.raises(NothingFits, match="nothing is safe here") as caught:
        recommend(request)
    error, details = caught.value, caught.value.details
    assert error.exit_code == 1
    assert details["risky"]["low"] < 0.9
    assert f"risky: {details['risky']['config']}" in error.message
    assert details["risky"]["total_high"] <= request.budget
    typed = error.hint.split("a budget of ")[1].split(",")[0]
    assert parse_bytes(typed) >= details["needed_bytes"] > request.budget
    assert recommend(replace(request, budget=parse_bytes(typed))).safe
    assert f"--context {details['safe_context']}" in error.hint
    shorter = replace(request, workload=Workload(details["safe_context"]))
    assert str(recommend(shorter).recommended.config) == details["safe_context_config"]
    longer = replace(request, workload=Workload(details["safe_context"] + STEP))
    try:
        beyond = recommend(longer).recommended.config
    except NothingFits:
        beyond = None
    assert beyond is None or beyond.chunk not in (None, 512, 1024, 2048, 4096)
    accepted = recommend(replace(request, accept_risk=True))
    assert not accepted.safe
    assert str(accepted.recommended.config) == details["risky"]["config"]


def test_a_risk_that_need_not_be_taken_is_none(qwen: Request) -> None:
    accepted = recommend(replace(qwen, budget=16 * GB, accept_risk=True))
    assert accepted.recommended.accuracy.low >= 0.9
    assert accepted.safe


def test_nothing_safe_anywhere_has_no_longest_context(qwen: Request) -> None:
    with pytest.raises(NothingFits, match="is safe at any context"):
        max_contexts(replace(qwen, budget=9 * GB, max_loss=0.001))
    with pytest.raises(NothingFits, match="even with a context of one token") as found:
        max_contexts(replace(qwen, budget=2 * GB))
    took = re.match(r"one token takes ([\d.]+GB)", found.value.hint)
    assert took is not None
    with pytest.raises(NothingFits, match="is safe at any context"):  # it fits, and promises little
        max_contexts(replace(qwen, budget=parse_bytes(took[1])))
    with pytest.raises(NothingFits, match="even with a context of one token"):
        max_contexts(replace(qwen, budget=parse_bytes(took[1]) - GB // 50))


def test_where_nothing_fits_an_engine_with_host_memory_is_named() -> None:

    asked = {"gpu": "3060", "context": "16k", "offline": True}
    with pytest.raises(NothingFits, match="nothing fits") as caught:
        plan("Qwen/Qwen2.5-14B-Instruct", **asked)
    (other,) = caught.value.details["elsewhere"]
    assert f"--engine {other['engine']}, for {other['config']}" in caught.value.hint
    there = plan("Qwen/Qwen2.5-14B-Instruct", engine=other["engine"], **asked)
    assert there["recommended"]["config"] == other["config"]
    with pytest.raises(NothingFits) as caught:
        plan("Qwen/Qwen3-8B", budget="50MB", offline=True)
    assert caught.value.details["elsewhere"] == []


def test_a_longer_wish_is_offered_no_shorter_context() -> None:
    """At ten million tokens only 8-bit weights are usable; shorter contexts need none."""
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    offered = []
    for asked in (200_000, 1_000_000, 10_000_000):
        with pytest.raises(NothingFits) as caught:
            recommend(Request(spec, Workload(asked, 512), KVPARETO, 12 * GB))
        offered.append(int(caught.value.hint.split("--context ")[1].split()[0]))
    assert min(offered) > 90_000
    assert max(offered) - min(offered) <= STEP * 2


def test_a_loss_that_nothing_keeps_in_any_memory_names_what_keeps_most(qwen: Request) -> None:
    """A checkpoint of 4 bits may lose more than that in its best configuration."""
    config = json.loads(read("models/Qwen--Qwen3-8B.json"))
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    asked = replace(qwen, spec=read_model(config, "Qwen3-8B-GPTQ"), budget=GB, max_loss=0.001)
    with pytest.raises(NothingFits, match=r"sure to lose at most 0\.1%") as caught:
        recommend(asked)
    least = caught.value.details["least_loss"]
    large = replace(asked, budget=100 * GB, max_loss=least + 1e-6)
    kept = recommend(large).recommended.config.with_chunk(None)
    assert str(kept) == caught.value.details["best"]["config"]
    with pytest.raises(NothingFits, match="nothing is safe here"):
        recommend(replace(large, max_loss=least - 1e-3))
