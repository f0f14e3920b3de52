"""Rows of the tables that came last can be read as the others are, and their models are known."""

import csv
from typing import Any

import pytest

from kvpareto.calibration.fit.published import FOLDER, clean
from kvpareto.planner.formats.configuration import Configuration

ROWS = {"raw_cache.csv": 476, "raw_later.csv": 86, "raw_next.csv": 366}


def table(name: str) -> list[dict[str, Any]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_a_model_a_source_and_scores(name: str) -> None:
    rows, learnt = table(name), table("raw_more.csv")
    models = {line["key"] for path in FOLDER.glob("models*.csv") for line in table(path.name)}
    assert len(rows) == ROWS[name]
    assert list(rows[0]) == list(learnt[0])
    for row in rows:
        assert row["model"] in models
        assert row["source"]
        assert 0 <= float(row["chance"]) < 1
        assert float(row["value"]) >= 0
        assert float(row["baseline"]) > 0
        if row["layout"]:
            layout = row["layout"] if row["layout"].startswith("+") else f"-{row['layout']}"
            Configuration.parse(f"w16a16-k4v4{layout}")


@pytest.mark.parametrize("name", ROWS)
def test_no_row_is_in_two_tables(name: str) -> None:
    def what(row: dict[str, Any]) -> tuple[str, ...]:
        names = ("model", "task", "weight_bits", "weight_method", "k_bits", "v_bits", "source")
        return tuple(row[name] for name in (*names, "layout"))

    others = ("raw_more.csv", "raw_blind.csv", *(other for other in ROWS if other != name))
    known = {what(row) for other in others for row in table(other)}
    assert not [row for row in table(name) if what(row) in known]


def test_the_fit_has_none_of_the_newest() -> None:
    newest = {(row["model"], row["task"], row["source"]) for row in table("raw_next.csv")}
    assert not [row for row in clean()[0] if (row.model, row.task, row.source) in newest]
