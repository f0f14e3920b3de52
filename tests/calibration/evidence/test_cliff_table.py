"""The table of collapses foreseen from checkpoints: what is measured in it, what is foreseen."""

import json
import math
from pathlib import Path

import pytest

from kvpareto.calibration.evidence.cliff_table import (
    HUB_IDS,
    LARGER,
    LARGER_SHOWN,
    MODEL,
    NARROW,
    SERVED,
    SHOWN,
    Line,
    blind_predictor,
    is_held,
    lines_of,
)
from kvpareto.calibration.evidence.marked_tables import shown_table
from kvpareto.calibration.fit.measured_models import SOURCES
from kvpareto.calibration.fit.mixed_effects import KnownModel
from kvpareto.planner.accuracy.interval import ROTATED_4_BITS, ROTATED_5_BITS
from kvpareto.planner.accuracy.predictor import Predictor

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def blind() -> tuple[Predictor, dict[str, KnownModel]]:
    return blind_predictor()


@pytest.fixture(scope="module")
def lines(blind: tuple[Predictor, dict[str, KnownModel]]) -> dict[str, Line]:
    return {line[0]: line for line in lines_of(*blind)}


def points(name: str) -> list[dict[str, object]]:
    text = (SOURCES / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_no_row_of_the_family_is_in_the_fit(
    blind: tuple[Predictor, dict[str, KnownModel]],
) -> None:
    fitted = blind[0].payload["models"]
    assert "qwen3-8b" in fitted
    assert not [key for key in fitted if "qwen2.5" in key or "qwq" in key or "distill-qwen" in key]


@pytest.mark.parametrize("name", SERVED)
def test_a_line_of_llama_cpp_is_its_16_needles(lines: dict[str, Line], name: str) -> None:
    """The same type for keys and values; an error of 16 items or, where all are found, of one."""
    _, row, (low, middle, high) = lines[f"llama.cpp, {name}, needles at 256"]
    found = [
        point["score"]
        for point in points("llama_cpp.jsonl")
        if point.get("task") == "needle-4"
        and point["config"] == f"wQ4_K_M-k{name}v{name}"
        and point["model"] == HUB_IDS[MODEL].split("/")[1]
    ]
    assert found == [row.retention]
    spread = found[0] * (1 - found[0]) or 1 / 16  # type: ignore[operator]
    assert row.sd == pytest.approx(math.sqrt(spread / 16))
    assert low <= middle <= high
    assert is_held(row, (low, middle, high))


def test_llama_cpps_intervals_reach_what_rotated_keys_may_keep(lines: dict[str, Line]) -> None:
    """And a fifth bit has the lower end of four: a layer that 4 bits lose is not back with it."""
    ends = {name: lines[f"llama.cpp, {name}, needles at 256"][2] for name in SERVED}
    assert ends["q4_0"][2] == ends["iq4_nl"][2] == ROTATED_4_BITS
    assert ends["q5_1"][2] >= ROTATED_5_BITS
    assert ends["q5_1"][0] < 0.001 < 0.05 < ends["q5_1"][1]
    assert ends["q8_0"][0] > 0.95


@pytest.mark.parametrize(("config", "words"), LARGER_SHOWN)
def test_a_line_of_the_larger_model_is_its_text(
    lines: dict[str, Line], config: str, words: str
) -> None:
    """exp(-excess nats) over the tail, at 1,024 tokens and not at another context."""
    row = lines[f"1.5B: {words}, text at 1k"][1]
    (tail,) = (
        point["tail"]
        for point in points("cpu_qwen15.jsonl")
        if point.get("config") == config and point["context"] == 1024
    )
    assert row.retention == pytest.approx(math.exp(-tail["excess"]))  # type: ignore[index]
    assert (row.model, row.context, row.weight_bits) == (LARGER, 1024, 16)


def test_the_larger_models_collapse_and_cures_are_foreseen(lines: dict[str, Line]) -> None:
    """Narrow intervals that hold the truth; where none does, the table says no."""
    verdicts = {
        words: is_held(row, ends) and ends[2] - ends[0] < NARROW
        for words, row, ends in lines.values()
    }
    larger = {words: verdicts[f"1.5B: {words}, text at 1k"] for _, words in LARGER_SHOWN}
    cured = ("smoothed", "both in groups of 32", "per channel", "8 bits")
    assert [words for words, is_foreseen in larger.items() if is_foreseen] == list(cured)
    assert lines["1.5B: per token, text at 1k"][2][2] < 0.6  # other tables' texts differ by as much
    assert lines["1.5B: smoothed, text at 1k"][2][0] > 0.7
    assert lines["1.5B: per channel, text at 1k"][2][0] > 0.85


def test_the_page_has_this_table(lines: dict[str, Line]) -> None:
    page = shown_table("cliff", DOCS).splitlines()[2:]
    shown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page]
    assert [cells[0] for cells in shown] == list(lines)
    assert len(shown) == len(SHOWN) + len(SERVED) + len(LARGER_SHOWN)
    for cells, (_, row, (low, middle, high)) in zip(shown, lines.values(), strict=True):
        said = [float(cells[1]), float(cells[2]), *map(float, cells[3].split(" to "))]
        assert said == pytest.approx([row.retention, middle, low, high], abs=5e-3), cells[0]
        assert (cells[4] != "no") == is_held(row, (low, middle, high)), cells[0]
