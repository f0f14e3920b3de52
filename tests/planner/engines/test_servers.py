"""What servers share: SGLang's pool, containers, the fewest cards, targets."""

import json
import shlex
from typing import Any

import pytest

from kvpareto import api
from kvpareto.cli import run
from kvpareto.planner.engines.sglang.pool import MIB, bytes_per_token, decode_graph, reserve
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.search import infeasible
from kvpareto.planner.search.request import Request
from kvpareto.planner.serving import Parallel

QWEN8, LLAMA70 = "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-70B-Instruct"


def plan(model: str, **words: Any) -> dict[str, Any]:
    return dict(api.plan(model, offline=True, **words))


def test_sglangs_reserve_by_hand() -> None:
    """0.5.23 on 24 GB: 512 + 1.5 a token + 128 a card + 2 a sequence + 8 a prefill graph, MiB."""
    spec, card = load_model(QWEN8, offline=True), find_gpu("4090")
    assert decode_graph(card, 1) == 48
    assert decode_graph(card, 4) == 160
    assert reserve(spec, card, 4096, 1) == (512 + 6144 + 128 + 96 + 8 * 58) * MIB
    assert reserve(spec, find_gpu("H200"), 8192, 1) >= 10 * 1024 * MIB
    assert bytes_per_token(spec, "auto") == 36 * 8 * 256 * 2
    assert bytes_per_token(spec, "fp8") == 36 * 8 * 256
    latent = load_model("deepseek-ai/DeepSeek-V3", offline=True)
    assert bytes_per_token(latent, "auto") == 61 * (512 + 64) * 2


@pytest.mark.parametrize("budget", ["24GB", "48GB", "100GB", None])
def test_what_a_budget_leaves_of_a_card_is_no_term_of_sglangs(budget: str | None) -> None:
    spec, card = load_model(QWEN8, offline=True), find_gpu("H200")
    found = plan(QWEN8, engine="sglang", gpu="H200", context="4k", budget=budget)
    memory, served = found["recommended"]["memory"], found["recommended"]["serving"]
    assert memory["activation"] == reserve(spec, card, served["flags"]["chunked_prefill_size"], 1)
    assert memory["total_low"] <= memory["total"] <= memory["total_high"] <= found["budget"]


def test_a_plan_for_sglang_is_marked_as_not_run() -> None:
    found = plan(QWEN8, engine="sglang", gpu="H200", users=16, context="16k")
    served = found["recommended"]["serving"]
    assert served["starts"]
    assert not served["measured"]
    assert found["recommended"]["ttft_s"] is None
    assert any("not run" in note for note in found["warnings"])
    flags = served["flags"]
    assert flags["context_length"] == 16896
    assert served["command"].startswith("python -m sglang.launch_server --model-path Qwen/Qwen3-8B")
    assert f"--mem-fraction-static {flags['mem_fraction_static']:g}" in served["command"]
    card = served["cards"][0]
    assert card["requested"] - card["weights"] - card["other"] == card["cache"]


@pytest.mark.parametrize(
    ("model", "config", "gpu", "says"),
    [
        ("google/gemma-3-4b-it", "w16a16-k16v16", "H200", "windows, states"),
        (QWEN8, "w16a16-kint8_per_token_headvint8_per_token_head", "H200", "does not run int8"),
        (QWEN8, "w16a16-kfp8vfp8", "3090", "needs compute capability 8.9"),
        (QWEN8, "w16a16-k16v16", "MI300X", "is not planned"),
    ],
)
def test_what_sglang_is_not_planned_for(model: str, config: str, gpu: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        api.estimate(model, config, engine="sglang", gpu=gpu, offline=True, context=4096)
    assert caught.value.hint


def test_the_fewest_cards_that_hold_a_model() -> None:
    words: dict[str, Any] = {"engine": "vllm", "gpu": "H100", "context": "8k", "max_loss": "0.05%"}
    found = plan(LLAMA70, gpus="auto", **words)
    assert found["gpus"] == ["NVIDIA H100 SXM5 80GB"] * 2
    with pytest.raises(NothingFits):
        plan(LLAMA70, **words)
    assert plan(QWEN8, engine="vllm", gpu="H100", gpus=2, context="8k")["gpus"]
    with pytest.raises(NothingFits, match="not even with 8 cards"):
        plan(LLAMA70, engine="vllm", gpu="3060 8GB", gpus="auto", context="8k", max_loss="0.1%")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"gpus": "auto"}, "--gpu names none"),
        ({"gpus": "auto", "gpu": "2xH100"}, "counts cards of one kind"),
        ({"gpus": "many", "gpu": "H100"}, "no number of cards"),
        ({"gpus": 0, "gpu": "H100"}, "no number of cards"),
        ({"gpus": 2, "gpu": "H100", "engine": "kvpareto"}, "kvpareto fills one"),
    ],
)
def test_bad_numbers_of_cards(words: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        plan(QWEN8, **{"engine": "vllm", **words})


@pytest.mark.parametrize(
    ("engine", "gpu", "says", "hints"),
    [
        ("vllm", "2xH100", ["TTFT 2 ms (the fastest"], "--gpu '4xH100 SXM5 80GB'"),
        ("vllm", "8xH100", ["TTFT 2 ms (the fastest"], "a faster GPU or a shorter context"),
        ("vllm", "RTX 4090+RTX 3090", ["TTFT 2 ms"], "a faster GPU or a shorter context"),
        ("kvpareto", "H100", ["TTFT 2 ms (the fastest"], "a faster GPU or a shorter context"),
        ("llama.cpp", "H100", ["TTFT 2 ms (the fastest"], "a faster GPU or a shorter context"),
    ],
)
def test_only_missed_targets_are_named(engine: str, gpu: str, says: list[str], hints: str) -> None:
    words: dict[str, Any] = {"engine": engine, "gpu": gpu, "context": "8k"}
    with pytest.raises(NothingFits) as caught:
        plan(QWEN8, ttft="2ms", tpot="60ms", **words)
    assert all(one in caught.value.message for one in says)
    assert "TPOT" not in caught.value.message
    assert hints in caught.value.hint
    assert caught.value.hint.startswith("what helps: ")  # whether it is enough is not known
    assert gpu not in caught.value.hint
    with pytest.raises(NothingFits) as caught:
        plan(QWEN8, ttft="2ms", tpot="0.01ms", **words)
    assert "TTFT 2 ms" in caught.value.message
    assert "TPOT 0.01 ms" in caught.value.message


@pytest.mark.parametrize("limit", ["ttft", "tpot"])
def test_the_fastest_time_that_is_named_is_met_when_typed(limit: str) -> None:
    for context in ("4k", "6k", "8k", "12k"):  # half of times are rounded down to nearest
        words: dict[str, Any] = {"gpu": "4090", "context": context, "accept_risk": True}
        with pytest.raises(NothingFits, match="as fast as asked") as caught:
            plan(QWEN8, **{limit: "1us"}, **words)
        typed = caught.value.message.split("the fastest has ")[1].split(")")[0]
        assert plan(QWEN8, **{limit: typed}, **words)["recommended"]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_an_estimate_is_of_the_plans_server(engine: str) -> None:
    words: dict[str, Any] = {"engine": engine, "gpu": "4090", "context": 8192, "users": 16}
    planned = plan("Qwen/Qwen2-0.5B-Instruct", **words)
    config = planned["recommended"]["config"]
    found = api.estimate("Qwen/Qwen2-0.5B-Instruct", config, offline=True, **words)
    assert found["serving"] == planned["recommended"]["serving"]
    assert any("left to a desktop" in note for note in found["warnings"])


def test_targets_that_are_met_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["plan", "-m", QWEN8, "--engine", "vllm", "--gpu", "H100", "--context", "8k"]
    assert run([*line, "--offline", "--ttft", "2s", "--tpot", "30ms"]) == 0
    assert "; within --ttft 2 s, --tpot 30 ms" in capsys.readouterr().out
    assert run([*line, "--offline"]) == 0
    assert "within --" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "words", "says"),
    [
        (QWEN8, {"gpu": "M3 Max 64GB"}, "holds all layers, in memory that is the host's too."),
        (QWEN8, {"gpu": "4090"}, "holds all layers; host memory the token table and the buffers"),
        (QWEN8, {"gpu": "3060 8GB", "ram": "32GB", "max_loss": "0.5%"}, "the other layers, the"),
        ("Qwen/Qwen3-30B-A3B", {"gpu": "3060", "ram": "64GB"}, "memory those experts, the token"),
    ],
)
def test_a_headline_names_what_is_in_host_memory(
    model: str, words: dict[str, Any], says: str
) -> None:
    found = plan(model, engine="llama.cpp", context="8k", **words)
    (line,) = (one for one in found["reasons"] if one.startswith("The device holds"))
    assert says in line
    assert "the rest" not in line


def test_what_our_own_runtime_would_do() -> None:
    own = plan(QWEN8, engine="vllm", gpu="4090", context="8k")["own_runtime"]
    alone = plan(QWEN8, gpu="4090", context="8k")["recommended"]
    assert own["config"] == alone["config"]
    assert own["total_high"] == alone["memory"]["total_high"]
    assert plan(QWEN8, engine="vllm", gpu="2x4090", context="8k")["own_runtime"] is None


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_docker_has_every_flag(engine: str) -> None:
    found = plan(QWEN8, engine=engine, gpu="2xH200", context="8k", snippet="docker")
    words = shlex.split(found["snippet"]["text"].replace("\\\n", " "))
    assert words[:5] == ["docker", "run", "--rm", "--gpus", "2"]
    for name, value in found["recommended"]["serving"]["flags"].items():
        flag = "--" + name.replace("_", "-")
        assert flag in words
        assert value is True or words[words.index(flag) + 1] == str(value)


def test_kubernetes_is_yaml_with_as_many_gpus() -> None:
    yaml = pytest.importorskip("yaml")
    found = plan(QWEN8, engine="sglang", gpu="4xL40S", context="8k", snippet="k8s")
    document = yaml.safe_load(found["snippet"]["text"])
    (box,) = document["spec"]["template"]["spec"]["containers"]
    assert box["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert box["command"] == ["python3", "-m", "sglang.launch_server"]
    assert "--mem-fraction-static" in box["args"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--engine", "vllm", "--gpu", "H200", "--snippet", "helm"], "no snippet"),
        (["--budget", "24GB", "--snippet", "docker"], "--snippet is for servers"),
        (["--budget", "1GB", "--snippet", "docker"], "--snippet is for servers"),
        (["--gpu", "H200", "--engine", "vllm", "--max-context", "--snippet", "k8s"], "for a plan"),
        (
            ["--gpu", "H200", "--engine", "any", "--max-context"],
            "--engine any compares engines: only `plan` takes it",
        ),
    ],
)
def test_bad_words(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "-m", QWEN8, "--offline", *words, "--json"]) == 2
    failure = json.loads(capsys.readouterr().out)
    assert says in failure["error"]
    assert failure["hint"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("tp4", Parallel(4)),
        ("tp2,pp2", Parallel(2, 2)),
        ("TP=2, dp=4, ep", Parallel(2, 1, 4, experts=True)),
    ],
)
def test_parallel_sizes_are_read(text: str, read: Parallel) -> None:
    assert Parallel.parse(text) == read
    assert Parallel.parse(str(read)) == read


def test_an_engine_that_is_not_known_is_corrected_to_a_name_that_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["plan", "-m", QWEN8, "--offline", "--engine", "lamacpp", "--json"]) == 2
    hint = json.loads(capsys.readouterr().out)["hint"]
    assert hint.startswith("did you mean llama.cpp? ")
    assert "ollama, vllm-plugin" in hint
    assert run(["plan", "-m", QWEN8, "--gpu", "H200", "--engine", "any", "--max-context"]) == 2
    assert "only `plan` takes it" in capsys.readouterr().err


def test_counts_of_cards_that_fail_are_not_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would fit is searched for the last count alone, and not where a larger one does."""
    explained: list[int] = []
    explain = infeasible.infeasible_error

    def counted(request: Request, *more: Any) -> NothingFits:
        explained.append(len(request.gpus))
        return explain(request, *more)

    monkeypatch.setattr(infeasible, "infeasible_error", counted)
    words: dict[str, Any] = {"engine": "vllm", "context": "8k", "max_loss": "0.05%"}
    assert len(plan(LLAMA70, gpu="H100", gpus="auto", **words)["gpus"]) == 2
    assert explained == []
    with pytest.raises(NothingFits, match="not even with 8 cards"):
        plan(LLAMA70, gpu="3060 8GB", gpus="auto", **words)
    assert explained == [8]
