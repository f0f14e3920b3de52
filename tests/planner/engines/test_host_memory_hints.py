"""Where a model is too large for the card, the hint says how much host memory would do."""

import re

import pytest

from kvpareto import api
from kvpareto.planner.errors import NothingFits


def hinted(**words: str) -> str:
    """The `--ram` of the hint."""
    with pytest.raises(NothingFits) as raised:
        api.plan(words.pop("model"), engine="llama.cpp", offline=True, **words)  # type: ignore[arg-type]
    (size, *_) = re.findall(r"--ram ([0-9.]+GB)", raised.value.hint or "")
    assert "budget" in (raised.value.hint or "") or "gpu" not in words
    return str(size)


@pytest.mark.parametrize(
    "words",
    [
        {"model": "openai/gpt-oss-20b", "gpu": "3060"},
        {"model": "Qwen/Qwen3-8B", "budget": "2GB"},
    ],
    ids=lambda words: str(words["model"]),
)
def test_the_host_memory_that_is_named_would_do(words: dict[str, str]) -> None:
    size = hinted(**words)
    asked = {name: value for name, value in words.items() if name != "model"}
    plan = api.plan(words["model"], engine="llama.cpp", ram=size, offline=True, **asked)  # type: ignore[arg-type]
    assert plan["fits"]
    less = f"{float(size[:-2]) / 2:.2f}GB"
    with pytest.raises(NothingFits):
        api.plan(words["model"], engine="llama.cpp", ram=less, offline=True, **asked)  # type: ignore[arg-type]


def test_where_host_memory_alone_is_short_it_is_named() -> None:
    """Half of 512 MB are the system's: the card holds all layers, the token table has no room."""
    with pytest.raises(NothingFits) as raised:
        api.plan("Qwen/Qwen3-8B", engine="llama.cpp", gpu="4060", ram="512MB", offline=True)
    assert raised.value.message.endswith("leaves more to host memory than its 256.00 MB")


def test_without_a_card_the_budget_is_typed_as_host_memory() -> None:
    with pytest.raises(NothingFits) as raised:
        api.plan("Qwen/Qwen3-8B", engine="llama.cpp", ram="4GB", offline=True)
    assert "--ram" in (raised.value.hint or "")
    assert "a budget of" not in (raised.value.hint or "")


def test_where_the_budget_was_typed_it_is_said_first() -> None:
    with pytest.raises(NothingFits) as raised:
        api.plan("Qwen/Qwen3-8B", engine="llama.cpp", budget="1GB", offline=True)
    found = re.match(
        r"this would fit: a budget of ([0-9.]+GB); or --ram ([0-9.]+GB) in place of --budget",
        raised.value.hint or "",
    )
    assert found is not None
    for typed in ({"budget": found[1]}, {"ram": found[2]}):
        assert api.plan("Qwen/Qwen3-8B", engine="llama.cpp", offline=True, **typed)["fits"]


def test_a_reserve_that_is_too_large_is_what_is_made_smaller() -> None:
    words = {"gpu": "H100", "offline": True, "context": "8k"}
    with pytest.raises(NothingFits) as raised:
        api.plan("Qwen/Qwen3-8B", reserve="80GB", **words)
    assert "a budget of" not in raised.value.hint
    found = re.search(r"--reserve ([0-9.]+[MG]B)", raised.value.hint)
    assert found is not None
    assert api.plan("Qwen/Qwen3-8B", reserve=found[1], accept_risk=True, **words)["fits"]
    with pytest.raises(NothingFits) as raised:  # without any it is too small as well
        api.plan("meta-llama/Llama-3.1-70B-Instruct", reserve="5GB", **words | {"gpu": "A10"})
    assert "a GPU that gives programs" in raised.value.hint


@pytest.mark.parametrize(
    ("gpu", "said"),
    [("3060", "a GPU that gives programs 23."), ("3090+3060", "GPUs that give programs 41.")],
)
def test_beside_gpus_no_budget_is_named_that_they_have_not(gpu: str, said: str) -> None:
    model = "Qwen/Qwen3-32B" if gpu == "3060" else "Qwen/Qwen3-8B"
    engine = "kvpareto" if gpu == "3060" else "sglang"
    with pytest.raises(NothingFits) as raised:
        api.plan(model, engine=engine, gpu=gpu, context="32k", offline=True)
    assert said in (raised.value.hint or "")
    assert "a budget of" not in (raised.value.hint or "")
    assert raised.value.details["would_fit"]["budget"] is None


def test_beside_a_gpu_that_has_it_the_budget_that_is_named_would_do() -> None:
    words = {"gpu": "4090", "context": "8k", "offline": True}
    with pytest.raises(NothingFits) as raised:
        api.plan("Qwen/Qwen3-8B", budget="2GB", **words)
    (size,) = re.findall("a budget of ([0-9.]+GB)", raised.value.hint or "")
    assert raised.value.details["would_fit"]["budget"] == size
    assert api.plan("Qwen/Qwen3-8B", budget=size, accept_risk=True, **words)["fits"]
