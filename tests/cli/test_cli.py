"""The command line from outside: exit codes, one-line errors, JSON, text that stays readable."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvpareto.cli.completion import NAMED
from kvpareto.planner.accuracy.task_kinds import REPORTED_KINDS
from tests.cli.answers import answer, document

MODEL = "Qwen/Qwen2.5-7B-Instruct"
ESTIMATE = ["estimate", "--model", MODEL, "--config", "w4a16-k4v4-g64+pc256"]
PLAN = ["plan", "--model", MODEL, "--budget", "12GB", "--context", "10k"]


def test_estimate_json_has_every_field_of_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, *ESTIMATE, "--output", "0")
    assert {"schema", "model", "config", "engine", "context", "output", "batch"} <= found.keys()
    assert (found["schema"], found["context"], found["output"]) == (1, 32768, 0)
    assert found["config"] == "w4a16-k4v4-g64+pc256"
    assert found["parameters"] == 7_615_616_512
    # 28 layers x 4 heads x 128 channels x 2 sides x 4.5 bits
    assert found["kv_bytes_per_token"] == 28 * 4 * 128 * 2 * 9 // 16
    assert found["memory"]["kv"] == 32768 * found["kv_bytes_per_token"]
    memory = found["memory"]
    terms = ("weights", "kv", "activation", "overhead")
    assert memory["total"] == sum(memory[term] for term in terms)
    assert memory["total_low"] <= memory["total"] <= memory["total_high"]
    assert all(type(size) is int for size in memory.values())


def test_plan_json_recommends_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, *PLAN, "--gpu", "4090")
    best = found["recommended"]
    assert found["fits"] is True
    assert found["considered"] >= 100_000
    assert best["memory"]["total_high"] <= found["budget"] == 12 * 10**9
    assert best["accuracy"]["low"] <= best["accuracy"]["retention"] <= best["accuracy"]["high"]
    assert best["accuracy"]["level"] == 0.9
    assert best["ttft_s"] > 0 < best["tpot_s"]
    assert found["reasons"]
    asked = document(capsys, *ESTIMATE, "--context", "10k", "--gpu", "4090")
    for point in (best, *found["frontier"]):
        assert point.keys() == asked.keys() - {"warnings"}
        assert point["context"] == 10240
    assert found["relative_latency"] is None


def test_a_plan_without_a_gpu_says_how_its_points_compare(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = document(capsys, *PLAN)
    best, pace = found["recommended"], found["relative_latency"]
    assert found["pace"] == pace  # the name of before, for one schema version
    assert best["ttft_s"] is None
    assert list(pace["points"]) == found["shown"]
    assert pace["points"][best["config"]] == {"ttft": 1.0, "tpot": 1.0}
    on_it = document(capsys, *PLAN, "--gpu", pace["gpu"])
    seconds = {p["config"]: p["ttft_s"] for p in (*on_it["frontier"], on_it["recommended"])}
    both = [config for config in found["shown"] if config in seconds]
    assert len(both) >= 2
    for config in both:
        expected = pace["points"][config]["ttft"] / pace["points"][both[0]]["ttft"]
        assert seconds[config] / seconds[both[0]] == pytest.approx(expected, rel=1e-6)
    monkeypatch.setenv("COLUMNS", "140")  # room for all columns
    _, text, _ = answer(capsys, *PLAN)
    assert "1.00x" in text
    assert pace["gpu"] in " ".join(text.split())


def test_json_may_be_asked_for_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "--json", *ESTIMATE)
    assert code == 0
    assert json.loads(out)["model"] == MODEL


def test_saved_plan_is_the_printed_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    code, out, err = answer(capsys, *PLAN, "--json", "--save", str(file))
    assert (code, err) == (0, f"saved to {file}\n")
    assert json.loads(file.read_text("utf-8")) == json.loads(out)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("command", [PLAN, [*PLAN[:-2], "--max-context"], ESTIMATE], ids=" ".join)
def test_tables_fit_80_columns_without_colour(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = answer(capsys, *command)
    assert (code, err) == (0, "")
    # A command to copy is one line, however long.
    folded = [line for line in out.splitlines() if " kvpareto " not in line]
    assert max(map(len, folded)) <= 80
    assert not [line for line in out.splitlines() if line.endswith(" ")]
    assert "\x1b" not in out
    assert MODEL in out


def test_max_context_is_the_last_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(
        capsys, "plan", "-m", "meta-llama/Llama-3.1-8B-Instruct", "--budget", "8GB", "--max-context"
    )
    bounded = [row for row in found["max_context"] if not row["limited_by_model"]]
    assert bounded
    row = bounded[0]
    for extra, fits in ((0, True), (4096, False)):
        again = document(
            capsys,
            *("estimate", "-m", found["model"], "--config", row["config"]),
            *("--context", str(row["max_context"] + extra)),
        )
        assert (again["memory"]["total_high"] <= 8 * 10**9) is fits


@pytest.mark.parametrize(
    ("arguments", "says", "hints"),
    [
        (["plan", "-m", MODEL], "no budget", "--budget 12GB"),
        ([*PLAN, "--budget", "12MB"], "nothing fits", ""),
        ([*PLAN, "--budget", "12"], "without a unit", "write 12GB"),
        ([*PLAN, "--budget", "dozen"], "not a memory size", "12GB"),
        ([*PLAN, "--context", "long"], "not a number of tokens", "32k"),
        ([*PLAN, "--batch", "0"], "batch", ""),
        ([*PLAN, "--max-loss", "5"], "not a loss", "write 5%"),
        ([*PLAN, "--objective", "fun"], "fun", "accuracy"),
        ([*PLAN, "--engine", "vroom"], "no engine", "transformers"),
        ([*PLAN, "--gpu", "4091"], "4091", ""),
        ([*PLAN, "--save", "/nonexistent/plan.json"], "cannot write", "choose"),
        (["plan", "--budget", "1GB"], "no model", "--model"),
        (["plan", MODEL, "-m", "other/model", "--budget", "9GB"], "two models", "once"),
        ([*PLAN, "--gpu", "3090", "--gpu", "3060"], "--gpu is given twice", "--gpu 3090+3060"),
        (["verify", "--budget", "1GB", "--budget=2GB"], "--budget is given twice", "8GB,12GB"),
        (["calibrate", "--tasks", "a", "--tasks", "b"], "--tasks is given twice", "--tasks"),
        (["calibrate", " "], "not a model: ' '", "give a hub id"),
        (["run", "-m", "", "hi"], "not a model: ''", "give a hub id"),
        (["verify", "-m", "", "--plan", "plan.json"], "not a model: ''", "give a hub id"),
        (
            ["plan", "-m", "Qwen/Qwen2.5-7B-Instrct", "--budget", "9GB", "--offline"],
            "offline",
            "did you mean Qwen/Qwen2.5-7B-Instruct",
        ),
        (["estimate", "-m", MODEL, "--config", "w4"], "not a configuration", "w4a16"),
        (["estimate", "-m", MODEL, "--config", "w4a16-k4v2", "--engine", "transformers"], "", ""),
        (["profiles", "show", "H2O"], "H2O", ""),
        ([*PLAN, "--vram", "9GB"], "--vram", "it is --budget here"),
        ([*PLAN, "--max-model-len", "9k"], "--max-model-len", "it is --context here"),
        (["run", "-m", MODEL, "--max-tokens", "9", "hi"], "--max-tokens", "it is --output here"),
        (["run", MODEL, "hello"], "extra argument", "kvpareto run -m MODEL"),
        (["nonsense"], "nonsense", "--help"),
        (["plan", "--nonsense"], "nonsense", "--help"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_a_hint(
    arguments: list[str], says: str, hints: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = answer(capsys, *arguments)
    assert code == (1 if says == "nothing fits" else 2)
    assert out == ""
    error, hint = err.splitlines()
    assert error.startswith("error: ")
    assert says in error
    assert hint.startswith("hint: ")
    assert hints in hint


def test_nothing_fits_says_by_how_much_and_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = answer(capsys, "plan", "-m", MODEL, "--budget", "6GB", "--context", "1m")
    assert code == 1
    assert "more than the budget of 6.00 GB" in err
    assert "would fit" in err


def test_profiles_name_models_and_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "profiles", "list")
    assert len(found["models"]) >= 60
    assert len(found["gpus"]) >= 25
    code, out, _ = answer(capsys, "profiles", "show", "meta-llama/Llama-3.1-8B-Instruct")
    assert code == 0
    assert "8,030,261,248" in out
    assert "32 x attention 32/8 heads of 128" in out
    code, out, _ = answer(capsys, "profiles", "show", "h200")
    assert code == 0
    assert "NVIDIA H200" in out


def test_help_needs_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys)
    assert code == 0
    assert "plan" in out
    assert answer(capsys, "profiles")[0] == 0
    assert answer(capsys, "--version")[1].startswith("kvpareto ")


def run_module(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kvpareto", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_the_module_runs_and_a_closed_pipe_is_no_error() -> None:
    assert run_module("--version").returncode == 0
    shell = f"{sys.executable} -m kvpareto profiles list | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_a_full_disk_and_a_poor_terminal_are_no_tracebacks() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kvpareto", *PLAN],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the disk is full\n")
    poor = run_module(*PLAN, PYTHONIOENCODING="ascii")
    assert (poor.returncode, poor.stderr) == (0, "")
    assert MODEL in poor.stdout


def test_shell_completion_is_offered() -> None:
    # Detection looks at the parent processes, which a test run without a terminal may not have.
    done = run_module("--show-completion", "bash", **{NAMED: "1"})
    assert "kvpareto" in done.stdout + done.stderr


def test_a_risk_is_refused_and_shown_as_one_where_it_is_accepted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["plan", "-m", "Qwen/Qwen3-14B", "--budget", "12GB", "--context", "16k"]
    code, out, err = answer(capsys, *asked)
    assert (code, out) == (1, "")
    error, hint = err.splitlines()
    assert "nothing is safe here" in error
    assert "risky: " in error
    assert "--accept-risk" in hint
    found = document(capsys, *asked, "--accept-risk")
    assert (found["safe"], found["fits"], found["accept_risk"]) == (False, True, True)
    code, out, _ = answer(capsys, *asked, "--accept-risk")
    assert code == 0
    assert "Recommended" not in out
    assert f"Not safe {found['recommended']['config']}" in " ".join(out.split())


def test_a_task_may_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    weakest, asked = document(capsys, *PLAN), document(capsys, *PLAN, "--task", "retrieval")
    assert weakest["task"] is None
    assert asked["task"] == asked["recommended"]["accuracy"]["task"] == "retrieval"
    kinds = list(REPORTED_KINDS)
    assert list(weakest["recommended"]["accuracy"]["tasks"]) == kinds
    code, _, err = answer(capsys, *PLAN, "--task", "poetry")
    assert code == 2
    assert "long-reasoning" in err.splitlines()[1]
