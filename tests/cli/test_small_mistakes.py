"""Small mistakes in what is typed: each says what is wrong, and what to type instead."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvpareto.cli import run
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_config
from kvpareto.planner.models.model_name import plain_name
from kvpareto.planner.units import parse_bytes

QWEN = ["-m", "Qwen/Qwen3-8B", "--offline"]


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        (["plan", *QWEN, "--budget", "0"], "out of range", "between"),
        (["plan", *QWEN, "--context"], "requires an argument", "kvpareto plan --help"),
        (["profiles", "show", "--json=1"], "does not take a value", "kvpareto profiles --help"),
        (
            ["--budget", "9GB", "plan", "-m", "a b"],
            "--budget before the command",
            "first: kvpareto plan --budget 9GB -m 'a b'",
        ),
        (
            ["estimate", *QWEN, "--config", "w4a16-k4v4", "--budget", "9GB"],
            "No such option: --budget",
            "--budget is an option of plan; `kvpareto estimate --help`",
        ),
        (["plan", *QWEN, "--zork"], "No such option: --zork", "`kvpareto plan --help` shows"),
        (["--tasks", "x"], "No such option: --tasks", "kvpareto calibrate --tasks x"),
        (["--zork", "plan"], "No such option: --zork", "`kvpareto --help`"),
        (["--json=1"], "does not take a value", "`kvpareto --help`"),
        (["plan", *QWEN, "--gpu", " "], "names no GPU", "profiles list"),
        (["plan", "-m", "ollama:q:8b", "--budget", "9GB"], "an Ollama name", "or ollama:q:8b if"),
        (["plan", *QWEN, "--budget", "12GB", "--save", "-"], "- is no file", "--json"),
        (["plan", *QWEN, "--budget", "12GB", "--save", ""], "no file is named", "name of a file"),
        (
            ["plan", *QWEN, "--budget", "9GB", "--users", "0"],
            "users out of range",
            f"{2**31} users",
        ),
        (
            ["plan", *QWEN, "--budget", "9GB", "--context", "2k, 4k,8k"],
            "how many sequences have each length",
            "2k,4k,8k:0.33,0.33,0.34",
        ),
        (
            ["plan", *QWEN, "--budget", "9GB", "--max-context", "--output", "50k"],
            "leaves none for a prompt",
            "--output 512; a plan takes any that a --context is named beside",
        ),
        (["plan", *QWEN, "--budget", "1e10"], "not a memory size: '1e10'", "write 10.00GB"),
        (["plan", *QWEN, "--gpu", "4090", "--ttft", "0"], "not a time for ttft: '0'", "30ms"),
        (["plan", *QWEN, "--budget", "9GB", "--context", "2k,4k:1,0"], "a part is 0", "sum to 1"),
        (["plan", *QWEN, "--budget", "9GB", "--context", "2k,x"], "tokens for context: 'x'", "32k"),
        (["plan", *QWEN, "--budget", "9GB", "--users", "x"], "number of users", "4 or 16"),
        (["plan", *QWEN, "--budget", "9GB", "--batch", "0"], "batch out of range", "sequences"),
        (
            ["plan", *QWEN, "--budget", "9GB", "--engine", "lama.cpp"],
            "no engine",
            "mean llama.cpp?",
        ),
        (["plan", *QWEN, "--budget", "9GB", "--engine", "zork"], "no engine", "engines are kvp"),
        (["plan", *QWEN, "--budget", "9GB", "--engine", "zork"], "no engine", "and any, with"),
        (
            ["plan", *QWEN, "--budget", "9GB", "--engine", "tensorrt"],
            "no engine",
            "engines are kvp",
        ),
        (["profiles", "import", "none.json"], "there is none", "profiles export"),
        (["profiles", "import", "."], "it is no file", "profiles export"),
        (["profiles", "show", "zork"], "no model, no GPU and no calibration", "profiles list"),
        (["profiles", "show", "A100"], "more than one GPU", "A100"),
        (
            ["plan", *QWEN, "--gpu", "4090", "--budget", "30GB"],
            "more than NVIDIA",
            "leave --budget",
        ),
        (
            ["plan", *QWEN, "--gpu", "4090", "--max-context", "--context", "8k"],
            "beside",
            "leave one",
        ),
        (["verify", "--plan", "p.json", "--output", "64"], "--plan says", "kvpareto verify"),
        (["verify", "--plan", "p.json", "--batch", "2"], "--plan says", "kvpareto verify"),
        (
            ["verify", *QWEN, "--budget", "9GB", "--random-weights", "--tasks", "variables"],
            "beside --random-weights",
            "leave one",
        ),
        (["run", *QWEN, "hello", "--top-k", "5"], "greedy", "--temperature 0.7"),
        (["chat", *QWEN, "--top-p", "0.5"], "greedy", "--temperature 0.7"),
        (["run", *QWEN, "--batch", "p.jsonl", "--system", "Hi"], "--system beside", "messages"),
        (["run", *QWEN, "hello", "--at-once", "3"], "--at-once without --batch", "one prompt"),
        *(
            (["estimate", *QWEN, "--config", f"w4a16-k2v2{part}"], f"{part} is out of range", hint)
            for part, hint in (
                ("+sink0", "1 to 8,192 tokens"),
                ("+sink99999999999", "1 to 8,192 tokens"),
                (f"+res{'9' * 30}", "1 to 1,048,576 tokens"),
                (f"+pc{'9' * 30}", "1 to 1,048,576 tokens"),
                ("+pc0", "1 to 1,048,576 tokens"),
                (f"+clip{'9' * 30}", "50 to 99 %"),
                (f"+rope{'9' * 30}", "16, 8 or 4 bits"),
                (f"-g{'9' * 30}", "at most six digits"),
                (f"-kc{'9' * 30}", "at most six digits"),
            )
        ),
        (["plan", "-m", "/proc/self/mem", "--budget", "9GB"], "'/proc/self/mem'", "config.json"),
        (["run", *QWEN, "--batch", "/dev/zero"], "not a file: '/dev/zero'", "JSON lines"),
        (["run", *QWEN, "--batch", "/proc/self/mem"], "cannot read '/proc/self/mem'", "a line is"),
        *(
            (["estimate", *QWEN, "--config", text], "not a weight format", hint)
            for text, hint in (
                ("wnvfp4a16-k4v4", "no activations: wnvfp4"),
                ("wQ4_K_Ma16-k4v4", "no activations: wQ4_K_M"),
                ("wq4_k_x-kq8_0vq8_0", "Q4_K_M"),
                ("wzork-k4v4", "known: F32"),
            )
        ),
        *(
            (["plan", *QWEN, "--budget", "9GB", *words], error, hint)
            for words, error, hint in (
                (["--users", "1e6"], "not a number of users: '1e6'", "write 1000000"),
                (["--context", "1e5"], "not a number of tokens for context: '1e5'", "write 100000"),
                (["--batch", "1.5e0"], "not a number of sequences for batch", "4 or 16"),
                (["--context", "inf"], "a number of tokens", "32k or 10240"),
                (
                    ["--context", "1,5k"],
                    "how many sequences",
                    "write 1.5k, or a part for each: 1,5k:0",
                ),
                (["--max-loss", "3,5"], "not a loss", "write 3.5%"),
            )
        ),
        *(
            (["calibrate", *words], f"{words[0]} is a", f"write {hint}")
            for words, hint in (
                (["--minutes", "0,5"], "--minutes 0.5"),
                (["--minutes", "1,000"], "--minutes 1000 or --minutes 1"),
                (["--minutes", "5min"], "--minutes 0.5"),
                (["--tolerance", "1%"], "--tolerance 0.01"),
                (["--runs", "1,000"], "--runs 1000"),
                (["--runs", "1e1"], "--runs 10"),
                (["--runs", "1.5"], "--runs 4"),
            )
        ),
        (["verify", *QWEN, "--budget", "12,5GB"], "no list of memory sizes", "write 12.5GB"),
        (
            ["estimate", *QWEN, "--config", "w4a16\N{EN DASH}k4v4"],
            "dashes that are no hyphens",
            "write w4a16-k4v4",
        ),
        (["profiles", "import", "-"], "imported from a file", "cat >"),
        (["run", *QWEN, "--batch", "nowhere.jsonl"], "no such file", "- for those on stdin"),
        (["estimate", *QWEN, "--config", "w4"], "no keys and values", "w4a16-k8v8"),
        (["estimate", *QWEN, "--config", "W8A16"], "no keys and values", "w8a16-k8v8"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_line_names_the_mistake(
    line: list[str],
    error: str,
    hint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(line) == 2
    said, advice = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    assert error in said
    assert advice.startswith("hint: ")
    assert hint in advice
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="no kernel's log here")
@pytest.mark.parametrize(
    "line",
    [
        ["plan", "-m", "/proc/kmsg", "--budget", "9GB"],
        ["report", "/proc/kmsg", "-o", "out.html"],
        ["run", *QWEN, "--batch", "/proc/kmsg"],
        ["profiles", "show", "/proc/kmsg"],
        ["profiles", "import", "/proc/kmsg"],
        ["verify", "--plan", "/proc/kmsg"],
        ["calibrate", "-m", "recall", "--device", "cpu", "--text", "/proc/kmsg"],
        ["calibrate", "-m", "recall", "--device", "cpu", "--haystack", "/proc/kmsg"],
    ],
    ids=" ".join,
)
def test_a_file_that_gives_no_data_is_not_waited_for(line: list[str], tmp_path: Path) -> None:
    """Whether the reader may read it or not; of a process of its own, since it would hang."""
    if "calibrate" in line:
        pytest.importorskip("sklearn")
    done = subprocess.run(
        [sys.executable, "-m", "kvpareto", *line], cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "KVPARETO_HOME": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("error: ")) == (2, 1), done.stderr


def test_capitals_are_read() -> None:
    read = Configuration.parse("W4A16-K8V4-G64+Smooth+PC512")
    assert read == Configuration.parse("w4a16-k8v4-g64+smooth+pc512")
    assert str(Configuration.parse("wQ4_K_M-kq8_0vq8_0")) == "wQ4_K_M-kq8_0vq8_0"


def test_a_size_without_a_unit_is_asked_back_and_nothing_is_no_size() -> None:
    with pytest.raises(BadInput, match="without a unit"):
        parse_bytes("12")
    with pytest.raises(BadInput, match="out of range"):
        parse_bytes("0.0")


def test_a_gpus_memory_is_said_in_one_unit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profiles", "show", "4090"]) == 0
    out = capsys.readouterr().out
    assert "24 GiB" in out
    assert "23.5" in out


def test_a_budget_that_is_much_too_small_says_what_would_fit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Engines that must have a card by name are not asked what they would do without one."""
    assert run(["plan", *QWEN, "--budget", "12MB"]) == 1
    assert capsys.readouterr().err.startswith("error: nothing fits")


def test_a_card_may_be_typed_with_the_memory_it_has() -> None:
    assert find_gpu("L4 24GB") is find_gpu("L4")
    assert find_gpu("nvidia t4 16 GiB") is find_gpu("T4")
    for wrong in ("L4 48GB", "zork 24GB"):
        with pytest.raises(BadInput, match="unknown GPU"):
            find_gpu(wrong)


def test_an_address_of_a_file_is_its_path(tmp_path: Path) -> None:
    assert plain_name(f"file://{tmp_path}/my%20model") == f"{tmp_path}/my model"


def test_a_model_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = json.dumps(load_config("Qwen/Qwen3-8B", offline=True).config)
    Path("config.json").write_text(config)
    asked = ["plan", "-m", ".", "--budget", "24GB", "--context", "2k", "--save"]
    assert run([*asked, "config.json"]) == 2
    assert "kvpareto did not write it" in capsys.readouterr().err
    assert Path("config.json").read_text() == config
    assert [run([*asked, "plan.json"]) for _ in range(2)] == [0, 0]
    capsys.readouterr()
    assert run(["verify", "--plan", "plan.json", "--save", "./plan.json"]) == 2
    assert "this command reads it" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file here")
def test_a_prompt_without_an_end_is_refused() -> None:
    """Of a process of its own, which may take no more memory than the planner needs."""
    with open("/dev/zero") as endless:
        done = subprocess.run(
            [sys.executable, "-m", "kvpareto", "run", *QWEN], stdin=endless, capture_output=True,
            text=True, timeout=60, check=False, preexec_fn=_little_memory,
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "characters of prompt" in done.stderr


def _little_memory() -> None:
    resource = pytest.importorskip("resource")
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))


def test_json_with_a_value_is_answered_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *QWEN, "--json=1"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2
