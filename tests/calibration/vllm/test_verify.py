"""`verify --engine vllm`: receipts of a stand-in engine that answers as vLLM does."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvpareto.calibration.vllm.log_lines import DIGIT, read_log
from kvpareto.calibration.vllm.start import (
    Burst,
    engine_arguments,
    read_events,
    run_engine,
)
from kvpareto.calibration.vllm.verify import _burst
from kvpareto.cli import run
from kvpareto.planner.engines.vllm.settings import ServeSettings
from kvpareto.planner.engines.vllm.start import Start, start
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.units import GiB
from kvpareto.planner.workload import Workload
from tests.calibration.vllm.stand_in import QWEN, Engine

LOG = """\
INFO 11-28 [model_runner.py:304] Model loading took 15.01 GiB memory and 2.1 seconds
INFO 11-28 [gpu_worker.py:560] Available KV cache memory: 108.8 GiB
INFO 11-28 [kv_cache_utils.py:2177] GPU KV cache size: 891,257 tokens
INFO 11-28 [gpu_worker.py:858] Free memory on device (139.29/139.8 GiB) on startup. Desired GPU \
memory utilization is (0.9, 125.82 GiB). Actual usage is 15.01 GiB for weight, 1.78 GiB for peak \
activation, 0.23 GiB for non-torch memory, and 0.99 GiB for CUDAGraph memory. Replace …
"""


def _promised(context: int = 4096 + 512) -> Start:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    return start(spec, find_gpu("H200"), ServeSettings(context))


def _as_promised(**but: Any) -> dict[str, Any]:
    found = _promised()
    return {
        "weights": found.weights,
        "activation": found.activation.expected,
        "other": found.other.expected,
        "cache": found.cache.expected,
        "ttft": 0.27,
        "tpot": 0.006,
    } | but


def _receipt(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = run([*QWEN, "--random-weights", "--json", "--offline", *words])
    return code, json.loads(capsys.readouterr().out)


def test_log_of_vllm_0_26_read_back() -> None:
    found = read_log(LOG)
    assert found["weights"] == round(15.01 * GiB)
    assert found["activation"] == round(1.78 * GiB)
    assert found["cache"] == round(108.8 * GiB)
    assert found["tokens"] == 891_257
    assert found["graphs"] == round(0.99 * GiB)
    assert read_log("nothing") == {}


def test_flags_as_arguments() -> None:
    flags = {"--max-model-len": "4096", "--kv-cache-dtype": "fp8", "--enforce-eager": ""}
    more = {"--gpu-memory-utilization": "0.9", "--no-enable-prefix-caching": ""}
    assert engine_arguments(flags | more) == {
        "max_model_len": 4096,
        "kv_cache_dtype": "fp8",
        "enforce_eager": True,
        "gpu_memory_utilization": 0.9,
        "enable_prefix_caching": False,
    }


def test_of_several_workers_the_fullest_card_counts() -> None:
    told = [
        {"event": "memory", "rank": 0, "weights": 5, "cache": 90, "activation": 3},
        {"event": "memory", "rank": 1, "weights": 6, "cache": 80, "activation": 2},
        {"event": "started", "seconds": 3.0},
    ]
    found = read_events(told)
    assert found.memory == {"weights": 6, "cache": 80, "activation": 3}
    assert found.started
    assert found.digit == 0
    assert read_events([], LOG).digit == DIGIT


def test_the_engine_is_started_with_every_flag(engine: Engine) -> None:
    settings = ServeSettings(4608, "fp8", 2048, 64, 0.85)
    burst = Burst(2, 300, 5)
    found = run_engine("m", settings.flags(), vocab=1000, bursts=[burst], random_weights=True)
    line = next(x for x in found.log.splitlines() if x.startswith("engine arguments"))
    given = json.loads(line.removeprefix("engine arguments "))
    assert given == {
        "max_model_len": 4608,
        "kv_cache_dtype": "fp8",
        "max_num_batched_tokens": 2048,
        "max_num_seqs": 64,
        "gpu_memory_utilization": 0.85,
        "skip_tokenizer_init": True,
        "seed": 0,
        "load_format": "dummy",
        "model": "m",
    }
    assert found.bursts[0].ttft == 0.25
    assert found.bursts[0].tpot == pytest.approx(0.005)
    assert found.memory["graphs"] == 600_000_000
    assert found.cache["groups"] == [[2, "SimpleNamespace", 16, 65536]]


def test_a_start_as_promised_is_verified(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers(**_as_promised())
    code, document = _receipt(capsys)
    assert (code, document["verified"]) == (0, True)
    sides = {term["name"]: term["side"] for term in document["terms"]}
    assert set(sides) == {
        *("weights", "activation", "overhead", "kv", "tokens"),
        *("ttft", "tpot", "throughput"),
    }
    assert {sides[n] for n in ("weights", "activation", "overhead", "kv", "ttft", "tpot")} == {
        "inside"
    }
    assert document["random_weights"] is True
    assert document["execution"]["command"].startswith("vllm serve Qwen/Qwen3-8B --max-model-len")


@pytest.mark.parametrize(
    ("term", "but"),
    [
        ("weights", {"weights": 20_000_000_000}),
        ("kv", {"cache": 60_000_000_000}),
        ("activation", {"activation": 9_000_000_000}),
        ("ttft", {"ttft": 20.0}),
        ("tpot", {"tpot": 0.2}),
    ],
)
def test_what_is_worse_than_promised_is_named(
    engine: Engine, capsys: pytest.CaptureFixture[str], term: str, but: dict[str, Any]
) -> None:
    engine.answers(**_as_promised(**but))
    code, document = _receipt(capsys)
    assert (code, document["verified"]) == (1, False)
    assert {t["name"] for t in document["terms"] if t["side"] == "worse"} >= {term}
    assert any(line.startswith(term) for line in document["wrong"])


def test_a_refused_start_is_no_crash(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.answers(**_as_promised(refuses="No available memory for the cache blocks."))
    code, document = _receipt(capsys)
    assert (code, document["verified"]) == (1, False)
    assert "No available memory for the cache blocks" in document["wrong"][0]
    assert document["outcome"] == "refused"


def test_an_engine_that_dies_or_stops_is_no_crash(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers(dies=True)
    code, document = _receipt(capsys)
    assert (code, document["outcome"]) == (1, "refused")
    engine.answers(**_as_promised(stops="CUDA error: out of memory"))
    code, document = _receipt(capsys)
    assert code == 1
    assert "CUDA error: out of memory" in document["wrong"][0]
    assert document["terms"][0]["measured"] is not None  # what it told before stays


def test_a_silent_release_is_read_from_its_log(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers(silent=True, prints=LOG.splitlines(), refuses="no more")
    _, document = _receipt(capsys)
    assert document["execution"]["memory"]["weights"] == round(15.01 * GiB)
    assert document["execution"]["error_of_bytes"] == DIGIT


def test_the_row_is_kept(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    engine.answers(**_as_promised())
    _receipt(capsys)
    row = json.loads((tmp_path / "home" / "vllm" / "runs.jsonl").read_text())
    assert row["engine"] == "vllm"
    assert row["execution"]["memory"]["cache"] == _as_promised()["cache"]


def test_tasks_are_scored_with_real_weights(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped model, whose answers the stand-in gives: all of them wrong."""
    pytest.importorskip("transformers")
    engine.answers(answer=[1, 2, 3])
    words = ["verify", "--engine", "vllm", "-m", "recall", "--context", "1k", "--config"]
    words += ["w16a16-kfp8vfp8", "--tasks", "needle-multikey", "--items", "2", "--json"]
    assert run(words) == 1
    document = json.loads(capsys.readouterr().out)
    (task,) = document["tasks"]
    assert (task["task"], task["items"], task["score"]) == ("needle-multikey", 2, 0.0)
    assert task["reference"] == 0.0
    assert "itself scores 0.00" in task["note"]


def test_the_line_of_a_plan_starts_what_the_plan_starts(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a mix of lengths and a part of the card: the same flags, the same prompts."""
    asked = ["-m", "Qwen/Qwen3-8B", "--engine", "vllm", "--gpu", "H200", "--budget", "40GB"]
    mix = ["--users", "7", "--context", "2k,16k:0.9,0.1"]
    assert run(["plan", *asked, *mix, "--json", "--offline"]) == 0
    plan = json.loads(capsys.readouterr().out)
    (line,) = (one["command"] for one in plan["commands"] if one["label"] == "Check it")
    engine.answers(**_as_promised())
    words = shlex.split(line)[1:]
    run([*words, "--random-weights", "--json", "--offline"])
    document = json.loads(capsys.readouterr().out)
    assert document["execution"]["command"] == plan["recommended"]["serving"]["command"]
    assert sorted(document["execution"]["bursts"][0]["lengths"]) == [2048] * 6 + [16384]
    mean = round((6 * 2048 + 16384) / 7)
    assert document["execution"]["bursts"][0]["context"] == mean


def test_a_saved_plan_of_several_lengths_is_run_with_all_of_them(
    engine: Engine, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    asked = ["-m", "Qwen/Qwen3-8B", "--engine", "vllm", "--gpu", "H200", "--users", "4"]
    mix = ["--context", "1k,8k:0.75,0.25", "--save", str(path), "--json", "--offline"]
    assert run(["plan", *asked, *mix]) == 0
    capsys.readouterr()
    engine.answers(**_as_promised())
    run(["verify", "--plan", str(path), "--random-weights", "--json", "--offline"])
    document = json.loads(capsys.readouterr().out)
    assert sorted(document["execution"]["bursts"][0]["lengths"]) == [1024, 1024, 1024, 8192]


@pytest.mark.parametrize(
    ("planned", "quick", "made"),
    [(16, False, 16), (512, False, 128), (512, True, 32), (0, True, 1)],
)
def test_a_burst_makes_what_was_planned_and_no_more_than_is_timed(
    planned: int, quick: bool, made: int
) -> None:
    asked: Any = SimpleNamespace(workload=Workload(1024, planned, batch=4))
    options: Any = SimpleNamespace(quick=quick, seed=0)
    assert _burst(asked, options) == Burst(4, 1024, made)
