"""A context too short for a task that was asked for is refused before weights are read."""

from pathlib import Path

import pytest

from kvpareto.calibration import tasks
from kvpareto.calibration.tasks.fits_context import LONG, check_fits
from kvpareto.cli import run
from kvpareto.planner.errors import BadInput
from kvpareto.runtime import load_weights

STORIES = str(Path(__file__).parents[2] / "data" / "stories260K-hf")
SHORT = ["--context", "32", "--tasks", "needle", "--device", "cpu"]


@pytest.mark.parametrize("model", ["recall", STORIES])
@pytest.mark.parametrize(
    "line",
    [
        ["calibrate", "--runs", "1", *SHORT],
        ["verify", "--config", "w16a16-k8v8", "--budget", "2GB", "--output", "4", *SHORT],
    ],
    ids=lambda line: line[0],
)
def test_before_a_model_is_loaded(
    line: list[str], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    monkeypatch.setattr(load_weights, "_plain", pytest.fail)
    assert run([*line, "-m", model]) == 2
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: task needle needs ")
    assert "longer context" in hint
    assert not list(tmp_path.rglob("rows.jsonl"))


def test_every_task_fits_what_is_not_tried() -> None:
    """The tokenizer of the tiny model has 512 words: it needs more tokens than any that is used."""
    check_fits(STORIES, tasks.find("all"), LONG - 1)
    check_fits("nobody/nothing", tasks.find("all"), 8)
    with pytest.raises(BadInput, match="needs"):
        check_fits(STORIES, tasks.find("all"), 8)
