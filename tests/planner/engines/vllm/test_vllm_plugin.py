"""`--engine vllm-plugin`: vLLM with this project's attention, as plans know it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from kvpareto.cli import run
from kvpareto.planner.engines import find_engine
from kvpareto.planner.engines.vllm import plugin
from kvpareto.planner.engines.vllm.plugin import cache_obstacle, model_obstacle, staging_bytes
from kvpareto.planner.engines.vllm.settings import ServeSettings
from kvpareto.planner.engines.vllm.speed import serving_speed
from kvpareto.planner.engines.vllm.start import start
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.profiles import read

INT4, INT8 = "int4_per_token_head", "int8_per_token_head"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
PLAN = ["plan", "--engine", "vllm-plugin", "-m", LLAMA, "--gpu", "H200", "--context", "16k",
        "--users", "16", "--json"]  # fmt: skip


def planned(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    run([*PLAN, *more])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_plan_names_the_backend_and_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    document = planned(capsys)
    assert (document["engine"], document["front"]) == ("vllm", "vllm-plugin")
    best = document["recommended"]
    assert best["serving"]["flags"]["attention_backend"] == "CUSTOM"
    assert "--attention-backend CUSTOM" in best["serving"]["command"]
    assert best["ttft_s"] > 0
    assert best["tpot_s"] > 0
    assert any('pip install "kvpareto[vllm]"' in note for note in document["warnings"])
    caches = {point["serving"]["flags"]["kv_cache_dtype"] for point in document["frontier"]}
    assert caches == {INT4, INT8}
    assert any("--engine vllm-plugin" in one["command"] for one in document["commands"])


def test_vllm_by_itself_is_planned_as_before() -> None:
    assert find_engine("vllm").front == ""
    assert "--attention-backend" not in ServeSettings(1000).flags()


@pytest.mark.parametrize(
    ("model", "dtype", "said"),
    [(LLAMA, INT4, None), (LLAMA, INT8, None), (LLAMA, "fp8", "not fp8"),
     ("deepseek-ai/DeepSeek-V3", INT4, "latents"),
     ("microsoft/Phi-3-mini-4k-instruct", INT4, "96 channels"),
     ("microsoft/Phi-3-mini-4k-instruct", INT8, None)],
)  # fmt: skip
def test_which_caches_it_takes(model: str, dtype: str, said: str | None) -> None:
    obstacle = cache_obstacle(load_model(model, offline=True), dtype)
    assert obstacle is None if said is None else said in str(obstacle)


def test_a_model_it_cannot_serve_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert model_obstacle(load_model("microsoft/Phi-3-mini-4k-instruct", offline=True)) is None
    code = run(["plan", "--engine", "vllm-plugin", "-m", "deepseek-ai/DeepSeek-V3", "--gpu",
                "8xH200"])  # fmt: skip
    assert code == 2
    assert "keeps latents" in capsys.readouterr().err


@pytest.mark.parametrize("cards", ["T4", "2xT4"])
def test_a_card_without_its_caches_is_refused(
    cards: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "--engine", "vllm-plugin", "-m", "Qwen/Qwen3-8B", "--gpu", cards]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the plugin keeps no cache on NVIDIA T4: ")
    assert "needs compute capability" in said
    assert "hint: --engine vllm " in said


def test_a_cache_it_does_not_read_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["estimate", "--engine", "vllm-plugin", "-m", LLAMA, "--gpu", "H200",
                "--config", "w16a16-kfp8vfp8"])  # fmt: skip
    assert code == 2
    assert "not fp8" in capsys.readouterr().err


def speed(dtype: str, backend: str, users: int, prompt: int) -> Any:
    settings = ServeSettings(
        135_000, kv_cache_dtype=dtype, max_num_batched_tokens=8192, attention_backend=backend
    )
    spec = load_model(LLAMA, offline=True)
    return serving_speed(spec, settings, find_gpu("H200"), users, prompt, 129)


def test_the_measured_steps_are_predicted() -> None:
    """profiles/vllm/plugin_0.26_h200.jsonl has the seconds; fp8's are of the same run."""
    rows = [json.loads(line) for line in read("vllm/plugin_0.26_h200.jsonl").splitlines()]
    whole = [row for row in rows if row["layers"] == 32 and row["test"] == "long"]
    measured = {row["engine"]: row["tpot_ms"] / 1e3 for row in whole}
    plugin = speed(INT4, "CUSTOM", 1, 131_000)
    assert plugin.kind == "fitted"
    assert plugin.tpot[0] == pytest.approx(measured["bf16:plugin"], rel=0.1)
    ratio = plugin.tpot[0] / speed("fp8", "", 1, 131_000).tpot[0]
    assert ratio == pytest.approx(measured["bf16:plugin"] / measured["bf16:fp8"], rel=0.1)
    # two models were run with it: as wide as a class that few models tell of
    assert plugin.tpot[2] / plugin.tpot[1] == pytest.approx(1.7 / 0.6)


def test_eight_bits_are_derived() -> None:
    eight = speed(INT8, "CUSTOM", 1, 131_000)
    assert eight.kind == "derived"
    # its kernel was timed alone: no wider than 4 bits, whose whole models were
    assert eight.tpot[2] / eight.tpot[1] == pytest.approx(1.7 / 0.6)
    assert speed(INT4, "CUSTOM", 1, 131_000).tpot[0] < eight.tpot[0]
    # prompts are staged in 16 bits whatever the cache has
    assert eight.ttft[0] == pytest.approx(speed(INT4, "CUSTOM", 1, 131_000).ttft[0], rel=0.01)


def test_awq_for_few_users_names_the_plugins_products(capsys: pytest.CaptureFixture[str]) -> None:
    for users, said in ((1, True), (64, True), (65, False)):
        run(["estimate", "--engine", "vllm-plugin", "-m", LLAMA, "--gpu", "H200", "--context",
             "16k", "--batch", str(users), "--config", f"wawq-k{INT4}v{INT4}",
             "--json"])  # fmt: skip
        document = capsys.readouterr().out
        assert ("--quantization kvpareto_awq" in document) is said


def test_cards_whose_launches_overlap_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for card, engine, said in (
        ("H200", "vllm-plugin", True),
        ("A100-80GB", "vllm-plugin", False),
        ("H200", "vllm", False),
    ):
        run(["estimate", "--engine", engine, "-m", LLAMA, "--gpu", card, "--context", "16k",
             "--config", f"w16a16-k{INT4}v{INT4}", "--json"])  # fmt: skip
        notes = json.loads(capsys.readouterr().out)
        assert ("TORCHINDUCTOR_ENABLE_PDL=1" in json.dumps(notes)) is said


def test_the_workspace_by_hand() -> None:
    spec = load_model(LLAMA, offline=True)
    settings = ServeSettings(131_072, kv_cache_dtype=INT4, attention_backend="CUSTOM")
    # 131,072 + 256 tokens x 8 heads x 128 channels x K and V x 2 bytes
    # 8,192 queries x 32 heads x 128 channels x 2 bytes
    assert staging_bytes(spec, settings) == 537_919_488 + 67_108_864
    assert staging_bytes(spec, replace(settings, kv_cache_dtype=INT8)) == 537_919_488
    gpu = find_gpu("H200")
    with_plugin = start(spec, gpu, settings).activation.expected
    without = start(spec, gpu, replace(settings, attention_backend="")).activation.expected
    assert with_plugin - without == 605_028_352


def test_the_padding_is_the_kernels() -> None:
    pytest.importorskip("triton")
    from kvpareto.runtime.kernels.paged import stage_pages

    assert plugin.PADDING == stage_pages.PADDING
