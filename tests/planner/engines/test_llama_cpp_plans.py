"""Plans for llama.cpp: what goes where, what is typed, what is refused."""

import json
import re
from typing import Any

import pytest

from kvpareto.cli import run
from kvpareto.planner.engines import find_engine
from kvpareto.planner.engines.llama_cpp import LLAMA_CPP
from kvpareto.planner.engines.llama_cpp.command import modelfile
from kvpareto.planner.engines.llama_cpp.parts import parts_of
from kvpareto.planner.engines.llama_cpp.place import HOST_PROCESS
from kvpareto.planner.engines.llama_cpp.place import place as place_on
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpus import Hardware
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.gguf_weights import gguf_weight_bytes
from kvpareto.planner.models.spec import ModelSpec
from kvpareto.planner.placement import Machine, Placement
from kvpareto.planner.workload import Workload

GB = 10**9
CARD = find_gpu("RTX 3060 12GB")
WORK = Workload(8192, 512)
Q4 = Configuration.parse("wQ4_K_M-kq8_0vq8_0+pc512")


def place(
    spec: ModelSpec,
    config: Configuration,
    work: Workload,
    card: Hardware | None,
    budget: int | None,
    ram: int | None,
) -> Placement:
    """On one card, or on none."""
    cards = () if card is None else (card,)
    return place_on(spec, config, work, Machine(cards, () if budget is None else (budget,), ram))


def test_everything_on_the_device_is_everything() -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    weights = gguf_weight_bytes(spec, "Q4_K_M")
    found = place(spec, Q4, WORK, CARD, 12 * GB, None)
    assert found.fits
    assert found.device.weights == weights.total - weights.embedding - weights.other
    assert found.host.weights == weights.embedding + weights.other
    # 28 layers x 2 sides x 8,704 cells x (4 heads x 128) in blocks of 32 that take 34 bytes
    assert found.device.kv == 28 * 2 * 8704 * 512 // 32 * 34
    assert dict(found.flags)["-ngl"] == "29"


def test_a_tied_table_lies_on_both_sides() -> None:
    spec = load_model("Qwen/Qwen2.5-1.5B-Instruct", offline=True)
    parts = parts_of(spec, Q4, WORK)
    found = place(spec, Q4, WORK, CARD, 12 * GB, None)
    assert parts.tied
    assert found.device.weights == sum(parts.layers) + parts.head
    assert found.host.weights == parts.embedding


def test_experts_leave_before_layers_do() -> None:
    spec = load_model("openai/gpt-oss-20b", offline=True)
    config = Configuration.parse("wmxfp4-kf16vf16+pc512")
    parts = parts_of(spec, config, WORK)
    found = place(spec, config, WORK, CARD, 8 * GB, 32 * GB)
    assert found.fits
    assert found.device_layers == 24
    assert 0 < found.host_experts < 24
    assert found.host.weights == parts.embedding + sum(parts.experts[: found.host_experts])
    assert f"--n-cpu-moe {found.host_experts}" in found.command
    # one layer's experts more on the device would not fit
    more = found.device_ends[1] + parts.experts[found.host_experts - 1]
    assert more > 8 * GB


@pytest.mark.parametrize("budget", [3, 5, 9])
def test_sides_sum_to_the_whole(budget: int) -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    parts = parts_of(spec, Q4, WORK)
    found = place(spec, Q4, WORK, CARD, budget * GB, 64 * GB)
    assert found.fits
    assert found.device_ends[1] <= budget * GB
    assert found.device.kv + found.host.kv == sum(parts.caches)
    copies = parts.head if parts.tied else 0
    assert found.device.weights + found.host.weights == parts.weights + copies
    assert (found.device_layers < 28) == (budget < 9)


def test_without_host_memory_named_nothing_leaves_the_device() -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    found = place(spec, Q4, WORK, CARD, 4 * GB, None)
    assert not found.fits
    assert found.device_layers == 28
    assert found.needed == found.device_ends[1] > 4 * GB


def test_on_the_processor_alone() -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    found = place(spec, Q4, WORK, None, None, 16 * GB)
    assert found.fits
    assert found.on_host_only
    assert found.host.weights == gguf_weight_bytes(spec, "Q4_K_M").total
    assert found.needed >= found.host.total + HOST_PROCESS
    assert "-ngl 0 " in found.command
    assert found.tpot is not None
    assert found.tpot[1] < found.tpot[0] < found.tpot[2]


def test_more_on_the_device_is_never_slower() -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    seconds = []
    for budget in (3, 4, 5, 6, 8):
        found = place(spec, Q4, WORK, CARD, budget * GB, 64 * GB)
        assert found.tpot is not None
        seconds.append(found.tpot[0])
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > 2 * seconds[-1]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("w4a16-kq8_0vq8_0", "llama.cpp has no w4a16"),
        ("wQ4_K_M-k4v4", "llama.cpp has no k4"),
        ("wQ4_K_M-kfp8vfp8", "llama.cpp does not run fp8"),
        ("wnvfp4-kf16vf16", "llama.cpp does not run nvfp4"),
        ("wQ4_K_M-kf16vf16+pcdyn", "neither protects layers"),
    ],
)
def test_what_it_does_not_have_is_refused(config: str, says: str) -> None:
    spec = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    chosen = Configuration.parse(config)
    with pytest.raises(BadInput) as error:
        LLAMA_CPP.place(spec, chosen, WORK, Machine((CARD,), (12 * GB,)))
    assert says in error.value.message
    assert error.value.hint


def test_a_latent_has_one_type() -> None:
    spec = load_model("deepseek-ai/DeepSeek-V2-Lite", offline=True)
    with pytest.raises(BadInput, match="one type for both"):
        place(spec, Configuration.parse("wQ4_K_M-kq8_0vf16"), WORK, None, None, 64 * GB)
    pairs = LLAMA_CPP.formats(spec, WORK, (), (), ((),)).names
    assert pairs
    assert all(k == v for k, v in pairs)


def test_other_programs_are_the_same_engine() -> None:
    for name in ("llama.cpp", "LlamaCpp", "ollama", "lmstudio"):
        assert find_engine(name).name == "llama.cpp"


def test_a_modelfile_says_what_it_cannot() -> None:
    flags = (("-m", "a.gguf"), ("-c", "8704"), ("-ngl", "29"), ("--n-cpu-moe", "3"))
    flags += (("-ctk", "q8_0"), ("-ctv", "q5_1"), ("-ub", "512"), ("-np", "1"))
    found = modelfile(flags)
    assert found["modelfile"] == (
        "FROM a.gguf\nPARAMETER num_ctx 8704\nPARAMETER num_gpu 29\nPARAMETER num_batch 512\n"
    )
    assert len(found["missing"]) == 2  # type: ignore[arg-type]
    assert "OLLAMA_KV_CACHE_TYPE" not in found["environment"]  # type: ignore[operator]


def test_a_card_too_small_is_a_plan_with_host_memory(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--engine", "llama.cpp", "-m", "openai/gpt-oss-20b", "--gpu", "RTX 3060 12GB"]
    code = run([*words, "--ram", "32GB", "--context", "16k", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    placement = document["recommended"]["placement"]
    assert placement["fits"]
    assert placement["flags"]["-c"] == "16896"
    assert placement["command"].startswith("llama-server -m gpt-oss-20b-mxfp4.gguf -c 16896 ")
    assert document["ram"] == 32 * GB - 32 * GB // 10
    assert placement["device"]["total"] < document["budget"]
    assert [c["label"] for c in document["commands"]] == ["Get", "Run it"]
    code = run([*words, "--context", "16k", "--json"])
    assert code == 1
    assert not json.loads(capsys.readouterr().out)["fits"]


def test_a_slow_plan_is_not_preferred(capsys: pytest.CaptureFixture[str]) -> None:
    """16-bit weights of 32 B fit in 64 GB beside a small card, and decode a token a second."""
    words = ["-m", "Qwen/Qwen2.5-32B-Instruct", "--gpu", "RTX 3060 12GB", "--ram", "96GB"]
    code = run(["plan", "--engine", "llama.cpp", *words, "--context", "8k", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert "BF16" not in document["recommended"]["config"]
    safe = [p for p in document["frontier"] if p["accuracy"]["low"] >= 0.9]
    fastest = min(point["tpot_s"] for point in safe)
    assert document["recommended"]["tpot_s"] <= 3.01 * fastest


def test_the_processor_alone_is_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "Qwen/Qwen2.5-7B-Instruct", "--ram", "16GB", "--context", "8k"]
    code = run(["plan", "--engine", "llama.cpp", *words, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document["host_only"]
    assert document["recommended"]["memory"]["total_high"] <= 16 * GB - 16 * GB // 10
    assert document["recommended"]["tpot_s"] > 0
    assert document["recommended"]["placement"]["flags"]["-ngl"] == "0"


def test_host_memory_is_for_engines_that_use_it(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["plan", "-m", "Qwen/Qwen2.5-7B-Instruct", "--budget", "12GB", "--ram", "32GB"])
    assert code == 2
    assert "--ram is a second budget" in capsys.readouterr().err


def test_large_models_are_placed_as_if_every_split_were_tried() -> None:
    """Bisection finds the first split that fits, experts before layers."""
    spec = load_model("Qwen/Qwen3-30B-A3B", offline=True)
    config = Configuration.parse("wQ8_0-kq8_0vq8_0+pc512")
    found = place(spec, config, WORK, CARD, 6 * GB, 64 * GB)
    assert found.fits
    assert found.device_layers == 48
    parts = parts_of(spec, config, WORK)
    assert found.device_ends[1] + parts.experts[found.host_experts - 1] > 6 * GB
    smaller = place(spec, config, WORK, CARD, 2 * GB, 64 * GB)
    assert smaller.fits
    assert smaller.host_experts == 48
    assert smaller.device_layers < 48
    none = place(spec, config, WORK, CARD, 6 * GB, 8 * GB)
    assert not none.fits
    assert none.needed > 6 * GB


def test_ollama_is_given_what_it_can_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "plan",
        "--engine",
        "ollama",
        "-m",
        "Qwen/Qwen2.5-7B-Instruct",
        "--gpu",
        "L4",
        "--json",
    ]
    assert run(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["engine"] == "llama.cpp"
    labels = [one["label"] for one in document["commands"]]
    assert labels == ["Get", "Modelfile", "Serve", "Create", "Run it"]
    name = document["recommended"]["placement"]["ollama"]["name"]
    assert re.fullmatch(r"qwen2\.5-7b-instruct-[a-z0-9_]+", name)
    said = [one["command"] for one in document["commands"][3:]]
    assert said == [f"ollama create {name} -f Modelfile", f"ollama run {name}"]
    assert document["commands"][1]["command"].startswith("FROM Qwen2.5-7B-Instruct-")
    for point in document["frontier"]:
        flags = point["placement"]["flags"]
        assert flags["-ctk"] == flags["-ctv"]
        assert flags["-ctk"] in ("f16", "q8_0", "q4_0")
    assert any("ollama runs llama.cpp" in warning for warning in document["warnings"])


def _planned(
    capsys: pytest.CaptureFixture[str], gpu: str, model: str = "Qwen/Qwen2.5-7B-Instruct"
) -> dict[str, Any]:
    said = ["plan", "-m", model, "--engine", "llama.cpp", "--gpu", gpu, "--offline", "--json"]
    assert run(said) == 0
    point: dict[str, Any] = json.loads(capsys.readouterr().out)["recommended"]
    return point


@pytest.mark.parametrize(
    ("gpu", "weights"),
    [("M3 Max 36GB", "Q8_0"), ("M3 Max 128GB", "Q8_0"), ("RTX 3060 12GB", "Q6_K")],
)
def test_idle_memory_is_spent_on_exact_weights(
    capsys: pytest.CaptureFixture[str], gpu: str, weights: str
) -> None:
    assert _planned(capsys, gpu)["config"].startswith(f"w{weights}-kf16vf16")


def test_a_file_is_named_only_where_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    known = _planned(capsys, "M3 Max 36GB")["placement"]
    assert known["file_repository"] == "bartowski/Qwen2.5-7B-Instruct-GGUF"
    assert known["file_address"].endswith("/blob/main/Qwen2.5-7B-Instruct-Q8_0.gguf")
    other = _planned(capsys, "M3 Max 36GB", "Qwen/Qwen2.5-3B-Instruct")["placement"]
    assert other["file_repository"] == ""
    assert "models?search=" in other["file_address"]


@pytest.mark.parametrize("model", ["Qwen/Qwen3-32B-FP8", "Qwen/Qwen3-30B-A3B-FP8"])
def test_a_file_is_looked_for_under_the_16_bit_models_name(
    capsys: pytest.CaptureFixture[str], model: str
) -> None:
    placement = _planned(capsys, "RTX 4090", model)["placement"]
    plain = model.split("/")[1].rsplit("-", 1)[0]
    assert placement["file_address"].endswith(f"search={plain}+GGUF")
    assert placement["file"].startswith(f"{plain} ")
    assert f"-m {plain}-" in placement["command"]


@pytest.mark.parametrize(("typed", "front"), [("ollama", "ollama"), ("llama.cpp", None)])
def test_an_estimate_names_the_engine_as_it_was_asked_for(
    typed: str, front: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["estimate", "-m", "Qwen/Qwen3-8B", "--config", "wQ4_K_M-kf16vf16", "--engine", typed]
    assert run(words) == 0
    heading = " ".join(capsys.readouterr().out.split("\n\n")[0].split())
    assert heading.endswith("engine ollama (llama.cpp)" if front else "engine llama.cpp")
    assert run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out).get("front") == front
