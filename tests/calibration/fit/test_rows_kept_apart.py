"""Rows that no fit has seen can be read as the others are, and their models are known."""

import csv
from typing import Any

from kvpareto.calibration.fit.published import FOLDER
from kvpareto.planner.formats.configuration import Configuration


def table(name: str) -> list[dict[str, Any]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_row_has_a_model_a_source_and_scores() -> None:
    rows, learnt = table("raw_blind.csv"), table("raw_more.csv")
    models = {line["key"] for name in ("models.csv", "models_blind.csv") for line in table(name)}
    assert len(rows) == 686
    assert list(rows[0]) == list(learnt[0])
    for row in rows:
        assert row["model"] in models
        assert row["source"]
        assert 0 <= float(row["chance"]) < 1
        assert float(row["value"]) >= 0
        assert float(row["baseline"]) > 0
        if row["layout"]:
            Configuration.parse(f"w16a16-k4v4-{row['layout']}")


def test_no_row_is_learnt_from_already() -> None:
    def what(row: dict[str, Any]) -> tuple[str, ...]:
        names = ("model", "task", "weight_bits", "weight_method", "k_bits", "v_bits", "source")
        return tuple(row[name] for name in names)

    learnt = {what(row) for row in table("raw_more.csv")}
    assert not [row for row in table("raw_blind.csv") if what(row) in learnt]
