"""What is nearest in other engines: names those engines have, and the same question again."""

import shlex
from typing import Any

import pytest

import kvpareto
from kvpareto.planner.engines.llama_cpp import LLAMA_CPP
from kvpareto.planner.engines.nearest import nearest_configuration
from kvpareto.planner.engines.vllm import VLLM
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.search.request import MOST_USERS
from kvpareto.planner.workload import Workload

BITS = (16, 8, 4, 2)


def test_sequences_that_no_server_takes_have_a_plan_of_ours() -> None:
    asked = {"gpu": "H200", "context": 8, "output": 1, "batch": MOST_USERS + 1}
    found = kvpareto.plan("Qwen/Qwen3-0.6B", offline=True, **asked)
    assert [one["engine"] for one in found["elsewhere"]] == ["llama.cpp"]


def test_an_engine_that_does_not_run_the_model_is_not_near() -> None:
    """GLM-5's sparse attention has bits as any cache, but is not planned for llama.cpp."""
    found = kvpareto.plan("zai-org/GLM-5", offline=True, budget="2TB", context="4k")
    assert LLAMA_CPP.cannot_run(load_model("zai-org/GLM-5", offline=True)) is not None
    assert found["elsewhere"] == []


@pytest.mark.parametrize(
    "model", ["Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-V3", "openai/gpt-oss-20b"]
)
def test_the_nearest_is_what_llama_cpp_runs_and_no_narrower(model: str) -> None:
    spec = load_model(model, offline=True)
    pairs = LLAMA_CPP.formats(spec, Workload(8192), (), (), ((),)).names
    for weights in (16, 8, 4):
        for keys in BITS:
            for values in BITS:
                ours = Configuration.parse(f"w{weights}a16-k{keys}v{values}+pc256")
                near = nearest_configuration("llama.cpp", spec, ours)
                assert near is not None
                theirs = Configuration.parse(near)
                LLAMA_CPP.check_formats(theirs)
                assert theirs.weight_format in LLAMA_CPP.weight_formats(spec)
                assert (theirs.k_format, theirs.v_format) in pairs
                assert theirs.k_bits >= keys
                assert theirs.v_bits >= values
                assert theirs.chunk == 256
                if weights == 16 and model != "openai/gpt-oss-20b":
                    assert theirs.weight_bits == 16


def test_the_nearest_of_vllm_has_one_cache_format_and_no_fewer_bits() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    for weights in (16, 8, 4):
        for keys, values in ((16, 16), (8, 8), (8, 4), (4, 2), (2, 2)):
            ours = Configuration.parse(f"w{weights}a16-k{keys}v{values}+pc256")
            near = nearest_configuration("vllm", spec, ours)
            assert near is not None
            theirs = Configuration.parse(near)
            VLLM.check_formats(theirs)
            assert theirs.weight_format in ("", *VLLM.weight_formats(spec))
            assert theirs.weight_bits >= weights
            assert theirs.k_format == theirs.v_format
            assert theirs.k_bits == theirs.v_bits >= max(keys, values)
            assert theirs.chunk in VLLM.chunks(Workload(8192))
    stored = load_model("openai/gpt-oss-20b", offline=True)
    assert nearest_configuration("vllm", stored, Configuration.parse("w4a16-k8v8")) is None


def test_nothing_is_named_where_nobody_knows() -> None:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    ours = Configuration.parse("w4a16-k4v4")
    assert nearest_configuration("zork", spec, ours) is None
    assert nearest_configuration("transformers", spec, ours) is None


def test_the_command_asks_the_same_question(capsys: pytest.CaptureFixture[str]) -> None:
    from kvpareto.cli import run

    words: dict[str, Any] = {
        "gpu": "4090", "budget": "20GB", "context": "16k", "output": 256, "batch": 2,
        "objective": "memory", "max_loss": "12.5%", "task": "retrieval", "offline": True,
    }  # fmt: skip
    document = kvpareto.plan("Qwen/Qwen3-8B", **words)
    (other,) = (one for one in document["elsewhere"] if one["engine"] == "llama.cpp")
    program, *arguments = shlex.split(other["command"])
    assert program == "kvpareto"
    assert run([*arguments, "--offline", "--json"]) == 0
    import json

    theirs = json.loads(capsys.readouterr().out)
    same = ("model", "gpu", "budget", "context", "output", "batch", "objective", "max_loss", "task")
    assert {name: theirs[name] for name in same} == {name: document[name] for name in same}
    assert theirs["engine"] == "llama.cpp"
    assert theirs["elsewhere"] == []


def test_the_budget_of_a_gpu_is_left_to_the_gpu() -> None:
    document = kvpareto.plan("Qwen/Qwen3-8B", gpu="4090", offline=True)
    assert "--budget" not in document["elsewhere"][0]["command"]
    assert "--gpu 'RTX 4090'" in document["elsewhere"][0]["command"]


@pytest.mark.parametrize(
    ("words", "engines"),
    [
        ({"gpu": "4090"}, ["llama.cpp", "vllm"]),
        ({"gpu": "M3 Max 64GB"}, ["llama.cpp"]),
        ({"gpu": "MI300X"}, ["llama.cpp"]),
        ({"gpu": "RX 7900 XTX"}, ["llama.cpp"]),
        ({"gpu": "M3 Max 64GB", "tpot": "60ms"}, ["llama.cpp"]),
        ({"gpu": "4090", "ttft": "1.8s"}, ["llama.cpp", "vllm"]),
        ({"gpu": "4090", "budget": "8GB"}, ["llama.cpp"]),
        ({"budget": "20GB"}, ["llama.cpp"]),
        ({"budget": "20GB", "max_loss": "100%"}, ["llama.cpp"]),
        ({"gpu": "H100", "dtype": "float32"}, []),
        ({"gpu": "H100", "dtype": "float16"}, ["llama.cpp", "vllm"]),
        ({"budget": "20GB", "max_loss": "0.5%"}, ["llama.cpp"]),
    ],
)
def test_no_command_is_named_that_is_refused(
    words: dict[str, Any], engines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from kvpareto.cli import run

    document = kvpareto.plan("Qwen/Qwen3-8B", context="8k", offline=True, **words)
    assert [one["engine"] for one in document["elsewhere"]] == engines
    for one in document["elsewhere"]:
        assert run([*shlex.split(one["command"])[1:], "--offline", "--json"]) == 0
    capsys.readouterr()


def test_a_dtype_that_was_asked_is_a_part_of_the_question() -> None:
    for words, said in (({"gpu": "H100", "dtype": "float16"}, True), ({"gpu": "T4"}, False)):
        document = kvpareto.plan("Qwen/Qwen3-4B", context="4k", offline=True, **words)
        assert document["elsewhere"]
        for one in document["elsewhere"]:
            assert ("--dtype float16" in one["command"]) == said


def test_targets_are_a_part_of_the_question() -> None:
    document = kvpareto.plan("Qwen/Qwen3-8B", gpu="H100", ttft="5s", tpot="30ms", offline=True)
    assert "--ttft 5s --tpot 0.03s" in document["elsewhere"][0]["command"]


def test_nothing_is_named_for_caches_that_no_engine_is_planned_for() -> None:
    spec = load_model("deepseek-ai/DeepSeek-V4-Flash", offline=True)
    for engine in ("llama.cpp", "vllm"):
        assert nearest_configuration(engine, spec, Configuration.parse("w4a16-k8v8")) is None
