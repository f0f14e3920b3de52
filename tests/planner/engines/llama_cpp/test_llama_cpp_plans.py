"""Plans for llama.cpp and its fronts: what is recommended, what is typed, what a reader is told."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kvpareto import api
from kvpareto.cli import run
from kvpareto.planner.engines import find_engine
from kvpareto.planner.engines.llama_cpp.command import modelfile
from kvpareto.planner.errors import BadInput, NothingFits

GB = 10**9


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


@pytest.mark.parametrize(("method", "said"), [("gptq", True), ("fp8", False)])
def test_the_file_of_a_quantized_checkpoint_is_of_its_original(
    method: str, said: bool, tmp_path: Path
) -> None:
    section = {"quant_method": method} | ({"bits": 3, "group_size": 128} if said else {})
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256}
    heads = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    config = {"model_type": "llama", **sizes, **heads, "quantization_config": section}
    (tmp_path / "config.json").write_text(json.dumps(config))
    words: dict[str, Any] = {"gpu": "H100", "context": "8k", "offline": True}
    plan = api.plan(str(tmp_path), engine="llama.cpp", **words)
    notes = [note for note in plan["warnings"] if "was quantized from" in note]
    assert len(notes) == said
    assert ("of the original model" in plan["recommended"]["placement"]["file"]) == said
    if said:
        with pytest.raises(NothingFits, match="nothing is safe") as caught:
            api.plan(str(tmp_path), **words)
        assert "of the original model" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"engine": "ollama", "config": "wQ4_K_M-kq8_0vq5_0"}, "one type of cache for K and V"),
        ({"engine": "ollama", "config": "wQ4_K_M-kq5_0vq5_0"}, "one type of cache for K and V"),
        ({"dtype": "float32"}, "float32 was asked"),
        ({"full_logits": True}, "logits of the last token alone"),
        ({"engine": "vllm", "full_logits": True}, "logits of the last token alone"),
    ],
)
def test_what_an_engine_has_not_is_refused_rather_than_left_out(
    words: dict[str, Any], says: str
) -> None:
    words = {"engine": "llama.cpp", "config": "wQ4_K_M-kq8_0vq8_0", **words}
    with pytest.raises(BadInput, match=says):
        api.estimate("Qwen/Qwen3-8B", **words, gpu="4090", context="4k", offline=True)
    if words["engine"] == "ollama":
        api.estimate("Qwen/Qwen3-8B", **{**words, "engine": "llama.cpp"}, offline=True)


def test_no_engine_is_named_that_does_not_compute_the_logits_that_were_asked() -> None:
    plan = api.plan("Qwen/Qwen3-8B", gpu="4090", context="4k", full_logits=True, offline=True)
    assert plan["elsewhere"] == []
