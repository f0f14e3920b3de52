"""Scores of answers, derived by hand; a session's run over items."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from kvpareto.calibration import tasks
from kvpareto.calibration.tasks import Item, evaluate
from kvpareto.calibration.tasks.scoring import share_found, share_in_order
from kvpareto.planner.errors import BadInput
from kvpareto.runtime import load
from tests.support.data_files import STORIES

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("answers", "text", "share"),
    [
        (("1234567",), " 1234567.", 1),
        (("1234567",), "1,234,567", 1),
        (("1234567",), "12345678", 0),
        (("1234567",), "71234567", 0),
        (("1234567",), "123 4567", 0),
        (("1234567", "7654321"), "7654321 and 1111111", 0.5),
        (("QXITL", "ZLQAP", "KMLHA"), "qxitl, VAR KMLHA", 2 / 3),
        (("QXITL",), "QXITLA", 0),
        (("amber-owl", "red-fox"), "1. Amber-Owl 2. red fox", 0.5),
        (("a.c",), "abc", 0),
        (("1234567",), "", 0),
    ],
)
def test_share_of_answers_found(answers: tuple, text: str, share: float) -> None:
    assert share_found(answers, text) == share


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (" 439\nafter step 2: 451\nafter step 3: 420", 1),
        ("412 + 27 = 439, 439 + 12 = 451, 451 - 31 = 420", 1),
        ("439 440 420", 2 / 3),
        ("451 439", 1 / 3),  # the second total stands before the first
        ("420 451 439", 1 / 3),
        ("4390 1451 x420 43.9", 0),
        ("1,439 451", 1 / 3),
        ("-439", 0),
        ("439.0 451", 1 / 3),
        ("", 0),
    ],
)
def test_share_of_totals_in_order(text: str, share: float) -> None:
    assert share_in_order(("439", "451", "420"), text) == share


def answering(texts: list[str], batch: int = 1) -> SimpleNamespace:
    """A session that gives `texts` one after the other."""
    left = iter(texts)

    def generate(prompts: list[list[int]], max_new_tokens: int) -> SimpleNamespace:
        assert len(prompts) == batch
        return SimpleNamespace(text=[next(left, "filler") for _ in prompts])

    clock = SimpleNamespace(starts=SimpleNamespace(shape=(batch,)))
    return SimpleNamespace(
        tokenizer=object(), generate=generate, cache=SimpleNamespace(clock=clock)
    )


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_run_scores_every_item_once(batch: int) -> None:
    items = [Item("?", (1, 2), (str(i), "x"), 4) for i in range(3)]
    seen: list[tuple[int, float]] = []
    task = tasks.TASKS["needle"]
    score = evaluate(
        answering(["0 x", "x", "3"], batch),  # type: ignore[arg-type]
        task,
        items,
        lambda index, value: seen.append((index, value)),
    )
    assert score.per_item == (1.0, 0.5, 0.0)
    assert score.value == 0.5
    assert score.stderr == pytest.approx(0.5 / 3**0.5)  # deviation sqrt(0.25), three items
    assert seen == [(0, 1.0), (1, 0.5), (2, 0.0)]


def test_a_run_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(BadInput, match="without a tokenizer"):
        evaluate(SimpleNamespace(tokenizer=None), tasks.TASKS["needle"], [])  # type: ignore[arg-type]


def test_a_real_session_answers_alike_in_batches() -> None:
    task = tasks.TASKS["needle-multikey"]
    found = []
    for batch in (1, 2):
        with load(STORIES, "w16a16-k8v8+pc64", context=420, output=32, batch=batch) as session:
            items = task.items(session.tokenizer, 420, 3)
            said: list[str] = []
            keeping = SimpleNamespace(
                score=lambda item, text, said=said: said.append(text) or task.score(item, text)
            )
            score = evaluate(session, keeping, items)  # type: ignore[arg-type]
        assert len(score.per_item) == 3
        assert all(said)
        found.append(said)
    assert found[0] == found[1]


def test_the_programs_of_the_page_run(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for program in programs:
        exec(compile(program, "docs/tasks.md", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith("0.0 0.0 (0.0, ")  # the storyteller finds no needle
    kl = {line.split()[0]: float(line.split()[1]) for line in said.splitlines()[1:]}
    shown = dict(re.findall(r"^\| `(\S+)` \| (\d\.\d+) ±", page, re.MULTILINE))
    assert len(shown) == len(kl) == 7
    for config, value in shown.items():
        assert kl[f"{config}+pc64"] == pytest.approx(float(value), rel=0.05), config
