"""What a plan for a server says beside its numbers, line by line, and when our own runtime's."""

from typing import Any

import pytest

from kvpareto.cli import run
from kvpareto.planner.errors import NothingFits
from kvpareto.planner.search.recommend import recommend
from kvpareto.planner.typed_request import typed_request
from kvpareto.planner.units import GiB
from kvpareto.report.servers import own_runtime as own
from kvpareto.report.servers import serving as lines

MB = 10**6


def card(gpu: str = "A", **terms: Any) -> dict[str, Any]:
    sizes = ("activation", "other", "graphs", "cache", "context", "graphs_beside")
    ends = {f"{name}{end}": 0 for name in sizes for end in ("", "_low", "_high")}
    return {"gpu": gpu, "memory": 4 * GiB, "requested": GiB, "weights": 0, **ends, **terms}


def point(**serving: Any) -> dict[str, Any]:
    usual = {
        "starts": True, "sequences_at_once": 9, "sequences_at_once_if_all_are_longest": 9,
        "tokens_per_second": 1234.4, "users": 4, "cache_tokens_low": 50_000, "ttft_alone_s": 0.5,
    }  # fmt: skip
    return {"serving": usual | serving, "ttft_s": 2.0}


def test_for_whom_there_is_room() -> None:
    assert lines.serves_line(point()) == (
        "room for 9 sequences at once; cache 50,000 tokens at least; 1,234 tokens a second for "
        "4 users"
    )
    fewer = point(sequences_at_once_if_all_are_longest=3, tokens_per_second=None)
    assert lines.serves_line(fewer) == (
        "room for 9 sequences at once, 3 if all are of the longest; cache 50,000 tokens at least"
    )
    assert lines.serves_line(point(starts=False)) == "it does not start, or may not"


def test_cards_alike_are_shown_once_and_terms_of_nothing_not_at_all() -> None:
    ends = {"activation": 8 * MB, "activation_low": 7 * MB, "activation_high": 9 * MB}
    sure = {"graphs": 6 * MB, "graphs_low": 6 * MB, "graphs_high": 6 * MB}
    one, other = card(weights=5 * MB, **ends, **sure), card("B", weights=5 * MB)
    rows = lines.card_rows({"serving": {"cards": [one, one, other, one]}})
    share = "25.0% of its 4.00 GiB:"
    terms = [
        ("  weights", "5.00 MB", ""),
        ("  peak of the profiled step", "8.00 MB", "7.00 MB to 9.00 MB"),
        ("  CUDA graphs", "6.00 MB", ""),
    ]
    assert rows == [
        ("each of 2 A", "1.07 GB", share), *terms,
        ("B", "1.07 GB", share), terms[0],
        ("A", "1.07 GB", share), *terms,
    ]  # fmt: skip


def test_a_term_that_may_be_nothing_is_shown_with_its_end() -> None:
    (_, row) = lines.card_rows({"serving": {"cards": [card(graphs_beside_high=2 * MB)]}})
    assert row == ("  beside it: CUDA graphs", "0 B", "0 B to 2.00 MB")


@pytest.mark.parametrize(
    ("more", "lost", "says"),
    [
        (3 * MB, 0.0009, "w4 needs 3.00 MB less and keeps as much"),
        (-3 * MB, 0.02, "w4 needs 3.00 MB more and keeps 2.0 % more"),
        (-3 * MB, -0.02, "w4 needs 3.00 MB more and keeps 2.0 % less"),
        (0, 0.001, "w4 needs as much and keeps 0.1 % more"),
    ],
)
def test_our_own_runtime_beside_a_server(more: int, lost: float, says: str) -> None:
    assert lines.own_words({"config": "w4", "bytes_more": more, "retention_lost": lost}) == says


def test_an_engine_of_several_in_a_line() -> None:
    row = {
        "config": "w4", "why_not": None, "taken": True, "total_high": 5 * MB, "retention": 0.99,
        "low": 0.97, "ttft_s": 2.0, "tpot_s": 0.01,
    }  # fmt: skip
    said = "w4: at most 5.00 MB, 99.0 %, at least 97.0 %"
    times = ", TTFT 2.00 s, TPOT 10.0 ms"
    assert lines.compared_words(row, "it is fast") == f"{said}{times}  <- taken: it is fast"
    left = row | {"taken": False, "why_not": "slow", "ttft_s": None, "tpot_s": None}
    assert lines.compared_words(left, "it is fast") == f"{said}; not taken: slow"
    assert lines.compared_words(left | {"config": None}, "") == "none: slow"


def test_one_prompt_alone_is_said_where_it_is_known() -> None:
    assert lines.alone_words(point()) == "; alone 0.50 s"
    assert lines.alone_words(point(ttft_alone_s=None)) == ""


def test_lengths_are_said_with_their_parts() -> None:
    document: dict[str, Any] = {"context": 2048, "output": 64}
    assert lines.asked_words(document) == "2k + 64 tokens"
    parts = [{"part": 0.9, "tokens": 2048}, {"part": 0.1, "tokens": 16384}]
    assert lines.asked_words(document | {"lengths": parts}) == "90% 2k, 10% 16k + 64 tokens"


def plan_for(gpu: str, engine: str = "vllm") -> Any:
    model = "Qwen/Qwen3-0.6B"
    return recommend(typed_request(model, gpu=gpu, engine=engine, context="2k", offline=True))


def test_our_own_runtime_is_asked_for_one_card_of_a_server_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_for("H100")
    found, best = own.own_runtime(plan), plan.recommended
    assert found is not None
    assert found["bytes_more"] == best.memory.total_high - found["total_high"]
    assert found["retention_lost"] == found["retention"] - best.accuracy.retention
    assert 0 < found["low"] <= found["retention"]
    assert own.own_runtime(plan_for("2xH100")) is None
    assert own.own_runtime(plan_for("H100", "kvpareto")) is None

    def nothing(*asked: object, **how: object) -> None:
        raise NothingFits("too large")

    monkeypatch.setattr(own, "recommend", nothing)
    assert own.own_runtime(plan) is None


def test_sequences_of_a_server_are_users_in_every_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["Qwen/Qwen3-8B", "--engine", "vllm", "--gpu", "H100", "--users", "16", "--offline"]
    config = ["--config", "w16a16-k16v16"]
    for command in (
        ["plan", *asked],
        ["plan", *asked, "--max-context"],
        ["estimate", *asked, *config],
    ):
        assert run(command) == 0
        assert ", users 16, engine vllm" in capsys.readouterr().out.splitlines()[0]
