"""The frontiers and the claims on the page of real models, from the rows."""

import math
from pathlib import Path
from typing import Any

import pytest

from kvpareto.calibration.fit.measured_models import SOURCES
from kvpareto.calibration.real_models.claims import (
    cache_share,
    claims,
    frontier,
    frontiers,
    kept,
    points_of,
    tasks_section,
)
from kvpareto.calibration.real_models.page import pages
from kvpareto.calibration.real_models.rows import read_rows
from kvpareto.planner.formats.configuration import Configuration

CODER = "Qwen/Qwen2.5-Coder-0.5B-Instruct"


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for _, row in read_rows(SOURCES.glob("real_*.jsonl")):
        found.setdefault(row["model"], []).append(row)
    return found


def test_a_frontier_rises_and_nothing_smaller_matches_it(
    rows: dict[str, list[dict[str, object]]],
) -> None:
    points = points_of(rows[CODER])
    front = frontier(CODER, points)
    assert [share for share, _, _ in front] == sorted(share for share, _, _ in front)
    assert [kept_ for _, kept_, _ in front] == sorted(kept_ for _, kept_, _ in front)
    names = [name for _, _, name in front]
    assert "w16a16-k4v4-kc" in names
    assert "w16a16-k4v4" not in names  # 30 points of the text are lost at the same bytes


def test_what_is_kept_is_of_the_tail_and_at_most_all() -> None:
    assert kept({"tail": {"excess": 0.1}}) == pytest.approx(math.exp(-0.1))
    assert kept({"tail": {"excess": -0.1}}) == 1.0


def test_shares_count_scales() -> None:
    """4 bits and a scale and zero of 32 bits for 64 channels: (4 + 0.5) / 16."""
    assert cache_share(CODER, Configuration.parse("w16a16-k4v4")) == pytest.approx(4.5 / 16)


def test_the_sections_answer_each_claim(rows: dict[str, list[dict[str, object]]]) -> None:
    assert "real_frontiers.svg" in frontiers({CODER: rows[CODER]})
    text = claims({CODER: rows[CODER]})
    lost = 100 * (1 - kept(points_of(rows[CODER])["w16a16-k4v4", 4096]))
    assert f"| K4V4 per token alone | {lost:.1f} |" in text
    assert text.count("\n- **") == 7


def test_the_pages_are_what_the_rows_say() -> None:
    written = pages(
        sorted(SOURCES.glob("real_*.jsonl")), sorted(SOURCES.glob("same_bytes_*.jsonl"))
    )
    docs = Path(__file__).parents[3] / "docs"
    assert set(written) == {path.name for path in docs.glob("real_*.md")}
    for name, text in written.items():
        assert (docs / name).read_text("utf-8") == text, name
        assert text.count("\n") < 200, name


def test_tasks_beside_the_claims_are_paired_and_left_out_where_the_model_guesses() -> None:
    """By hand: 2 of 8 questions lost of 6, the standard error of the 8 differences."""

    def row(model: str, text: str, task: str, items: str) -> dict[str, Any]:
        one = {"score": items.count("1") / len(items), "parts": 1, "items": items}
        config = f"w16a16-{text}+pc1024"
        return {
            "model": model,
            "kind": "tasks",
            "config": config,
            "context": 0,
            "tasks": {task: one},
        }

    rows = [
        row(CODER, "k16v16", "gsm8k", "11111100"),
        row(CODER, "k4v4-kc", "gsm8k", "11110000"),
        row(CODER, "k16v16", "mmlu", "11000000"),
        row(CODER, "k4v4-kc", "mmlu", "10000000"),
    ]
    text = tasks_section(rows)
    error = 100 * (2 / 8 * 6 / 8 * 8 / 7) ** 0.5 / 8**0.5
    assert f"| K4V4 per channel (KIVI) | -25.0 ± {error:.1f} |" in text
    assert "Qwen2.5-Coder-0.5B-Instruct, 75.0 %" in text
    assert "MMLU, five" not in text
