"""What config, tokenizer and options tell is refused before weights are read."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from kvpareto.calibration import tasks
from kvpareto.calibration.tasks.fits_context import LONG, check_fits
from kvpareto.cli import run
from kvpareto.planner.errors import BadInput
from kvpareto.runtime import load_weights
from tests.support.data_files import STORIES

SHORT = ["--context", "32", "--tasks", "needle", "--device", "cpu"]
CALIBRATE = ["calibrate", "--device", "cpu", "--runs", "1"]
VERIFY = ["verify", "--device", "cpu", "--budget", "2GB", "--output", "4", "--context", "64"]


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(load_weights, "load_plain", pytest.fail)


def _without(folder: Path, *names: str) -> str:
    """The tiny model without some of its files."""
    shutil.copytree(STORIES, folder, ignore=lambda _, found: {*names} & {*found})
    return str(folder)


def _refused(
    line: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(line) == 2
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: ")
    assert not list(tmp_path.rglob("rows.jsonl"))


@pytest.mark.parametrize("model", ["recall", str(STORIES)], ids=["recall", "stories"])
@pytest.mark.parametrize(
    "line",
    [
        ["calibrate", "--runs", "1", *SHORT],
        ["verify", "--config", "w16a16-k8v8", "--budget", "2GB", "--output", "4", *SHORT],
    ],
    ids=lambda line: line[0],
)
def test_tasks_that_fit_no_context(
    line: list[str], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _refused([*line, "-m", model], "task needle needs ", capsys, tmp_path)


def test_a_hub_id_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files lie in a snapshot, which only a hub id finds."""
    commit = "0" * 40
    repository = tmp_path / "hub" / "models--nobody--stories"
    shutil.copytree(STORIES, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    line = ["calibrate", "--runs", "1", *SHORT, "-m", "nobody/stories", "--offline"]
    _refused(line, "task needle needs ", capsys, tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (CALIBRATE, "has no tokenizer"),
        ([*VERIFY, "--config", "w16a16-k8v8", "--tasks", "needle"], "has no tokenizer"),
        (["run", "--device", "cpu", "--config", "w16a16-k8v8", "hi"], "has no tokenizer"),
        (["chat", "--device", "cpu", "--config", "w16a16-k8v8"], "has no tokenizer"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_model_without_a_tokenizer(
    line: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _without(tmp_path / "bare", "tokenizer.json")
    _refused([*line, "-m", model], said, capsys, tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([*VERIFY, "--config", "w16a16-k2v2+affine"], "has no affine maps"),
        (
            [*VERIFY, "--config", "w16a16-k8v8", "--engine", "transformers"],
            "transformers is run at 16 bits",
        ),
        (["run", "--config", "w16a16-k2v2+affine", "hi"], "has no affine maps"),
        (
            ["run", "--config", "w16a16-k8v8+pcdyn", "hi"],
            "dynamic chunks (+pcdyn) follow a memory target",
        ),
        (["chat", "--config", "w16a16-k8v8"], 'kvpareto run -m MODEL "text" continues text'),
        (["run", "--config", "w16a16-k8v8", "--system", "Be brief.", "hi"], "no chat template"),
        (["run", "--config", "w16a16-k8v8", "--context", "2", "Once upon"], "gives it room"),
    ],
    ids=["affine", "engine", "run-affine", "run-dynamic", "chat", "system", "long"],
)
def test_what_a_configuration_or_a_prompt_asks_for(
    line: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*line, "-m", str(STORIES)]) == 2
    assert said in capsys.readouterr().err


def test_a_text_that_teaches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.txt").write_text("A dog.")
    text = ["--text", str(tmp_path / "short.txt"), "--context", "64", "-m", str(STORIES)]
    _refused([*CALIBRATE, *text, "--affine"], "teaches no maps", capsys, tmp_path)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{% for m in messages %}", "chat template does not take these messages"),
        ("{{ messages[0].content }}<unk>", ""),
    ],
    ids=["refuses", "damaged", "fine"],
)
def test_a_chat_template_is_tried(
    template: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = tmp_path / "chatty"
    shutil.copytree(STORIES, model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["chat_template"] = template
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    line = ["chat", "--config", "w16a16-k8v8", "--device", "cpu", "--system", "Be brief."]
    if said:
        _refused([*line, "-m", str(model)], said, capsys, tmp_path)
        return
    asked: list[str] = []
    monkeypatch.setattr(load_weights, "load_plain", lambda *rest: asked.append("weights"))
    monkeypatch.setattr("kvpareto.runtime.session.Session.__init__", _stop)
    assert run([*line, "-m", str(model)]) == 2
    assert asked == ["weights"]


def _stop(*arguments: object, **words: object) -> None:
    raise BadInput("far enough", "a test")


def test_every_task_fits_what_is_not_tried() -> None:
    """The tokenizer of the tiny model has 512 words: it needs more tokens than any that is used."""
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    check_fits("it", tokenizer, tasks.find("all"), LONG - 1)
    check_fits("it", None, (), 8)
    with pytest.raises(BadInput, match="needs"):
        check_fits("it", tokenizer, tasks.find("all"), 8)
