"""README's table of what quantizing costs: every figure is the shipped rows', and no other."""

import csv
import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from kvpareto.calibration.evidence.readme_table import (
    CELLS,
    LINES,
    Shipped,
    accuracy_lines,
    formats_table,
    keys_table,
)
from kvpareto.calibration.fit.accuracy_rows import read_rows
from kvpareto.calibration.fit.cross_validation import read_predicted
from kvpareto.calibration.fit.published import FOLDER
from kvpareto.calibration.grid.held_out import FILE, held_out_of, read_held_out, write_held_out
from kvpareto.calibration.grid.reading import decode_items, read_runs
from kvpareto.planner.errors import BadInput

ROOT = Path(__file__).parents[3]
RUNS = read_runs(FILE)
SPEC = importlib.util.spec_from_file_location("written", ROOT / "docs" / "write_generated.py")
assert SPEC is not None
assert SPEC.loader is not None
WRITTEN = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(WRITTEN)


@pytest.fixture(scope="module")
def shipped() -> Shipped:
    return Shipped.read()


def cells(table: str, first: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def lines_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def kept_by_hand(model: str, config: str, context: int) -> float:
    """Right parts / the unquantized model's: of needles, and the mean of the other two."""
    lines = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
    found = {
        line["config"]: line["tasks"]
        for line in lines
        if (line.get("model"), line.get("context")) == (model, context) and "tasks" in line
    }
    needles, variables, arithmetic = (
        sum(decode_items(found[config][task]["items"]))
        / sum(decode_items(found["w16a16-k16v16"][task]["items"]))
        for task in ("needle-16", "variables-8x2", "arithmetic-6")
    )
    return needles / 2 + (variables + arithmetic) / 4


def test_readme_shows_the_tables_of_the_shipped_rows(shipped: Shipped) -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    assert f"<!-- formats -->\n{formats_table(shipped)}\n<!-- end -->" in page
    for line in accuracy_lines(shipped).values():
        assert f"\n{line}\n" in page
    page = (ROOT / "docs" / "recall_model.md").read_text("utf-8")
    assert f"<!-- keys -->\n{keys_table(RUNS)}\n<!-- end -->" in page


def test_a_line_of_the_grid_is_its_configurations(shipped: Shipped) -> None:
    """The formats of 4-bit keys per token that are smoothed, computed from the file by hand."""
    contexts = (1024, 4096, 8192)
    configs = (
        "w16a16-k4v16+smooth+pc256",
        "w4a16-k4v16-g32+smooth+pc256",
        "w4a16-k4v8+smooth+res128+pc256",
    )
    found = cells(formats_table(shipped), "the same, smoothed")
    kept = np.array([[kept_by_hand("recall-outliers", c, n) for n in contexts] for c in configs])
    kept = np.minimum(kept, 1.0)
    assert found[2] == str(2 * kept.size)
    assert found[5] == " / ".join(f"{100 * value:.1f}" for value in kept.mean(axis=0))
    own = {
        (x["config"], int(x["context"])): float(x["format"])
        for x in lines_of(held_out_of(FILE))
        if x["model"] == "recall-outliers"
    }
    said = np.array([[own[c, n] for n in contexts] for c in configs])
    assert found[6] == f"{100 * said.mean():.1f} ({100 * np.abs(said - kept).mean():.1f})"


def test_a_line_of_published_rows_is_their_mean(shipped: Shipped) -> None:
    found = cells(formats_table(shipped), "K4, V2, per channel")
    own = [
        x
        for x in lines_of(FOLDER / "accuracy.csv")
        if (x["k_bits"], x["v_bits"], x["granularity"]) == ("4", "2", "per-channel")
        and x["kind"] in ("reasoning", "long_reasoning", "retrieval")
    ]
    kept = [min(1.0, float(x["retention"])) for x in own]
    assert found[7] == f"{len(own)}, {len({x['model'] for x in own})}"
    assert found[8] == f"{100 * np.mean(kept):.1f} ({100 * min(kept):.1f})"


def test_no_run_is_counted_twice(shipped: Shipped) -> None:
    for rows in (*(grid.rows for grid in shipped.grids.values()), shipped.published.rows):
        for row in rows:
            assert sum(line.holds(row) for line in LINES) <= 1, row
    assert 8 <= len(LINES) <= 14


def test_every_cell_of_the_keys_is_in_the_grid() -> None:
    table = keys_table(RUNS).splitlines()
    for config, words in CELLS.items():
        (line,) = [line for line in table if f"`{config}`" in line]
        assert line.startswith(f"| {words} |")


def test_a_number_that_disagrees_is_named_with_its_line(shipped: Shipped) -> None:
    page = f"# Title\n\n{formats_table(shipped)}\n"
    assert WRITTEN.stale("README.md", page, page) == []
    number = re.search(r"\d+\.\d", page)
    assert number is not None
    spoiled = page[: number.start()] + "12.3" + page[number.end() :]
    at = page[: number.start()].count("\n") + 1
    head, said, wanted = WRITTEN.stale("README.md", spoiled, page)
    assert head.startswith(f"README.md:{at}: ")
    assert "12.3" in said
    assert wanted == f"  + {page.splitlines()[at - 1]}"


def test_another_measurement_makes_another_table(shipped: Shipped, tmp_path: Path) -> None:
    """A row of the published tables that changes, with its prediction's file."""
    for name in ("accuracy.csv", "accuracy.json", "held_out.csv"):
        shutil.copy(FOLDER / name, tmp_path)
    for name in ("accuracy.csv", "held_out.csv"):
        text = (tmp_path / name).read_text("utf-8")
        assert text.count("0.419306") == 1
        (tmp_path / name).write_text(text.replace("0.419306", "0.119306"), encoding="utf-8")
    assert formats_table(Shipped.read(folder=tmp_path)) != formats_table(shipped)


def test_predictions_of_other_rows_are_refused(tmp_path: Path) -> None:
    rows = read_rows(FOLDER / "accuracy.csv")
    with pytest.raises(BadInput, match=r"held_out\.csv"):
        read_predicted(FOLDER / "held_out.csv", rows[:-1])
    file = held_out_of(FILE)
    with pytest.raises(BadInput, match="do not agree"):
        read_held_out(file, RUNS[:-1], "format")
    text = file.read_text("utf-8")
    other = tmp_path / file.name
    first = lines_of(file)[0]
    line = f"{first['model']},{first['config']},{first['context']},{first['retention']},"
    assert text.count(line) == 1
    other.write_text(text.replace(line, line[:-2] + "5,"), encoding="utf-8")
    with pytest.raises(BadInput, match="out of date"):
        read_held_out(other, RUNS, "format")


def test_predictions_come_back_as_they_were_written(shipped: Shipped, tmp_path: Path) -> None:
    ways = {"point": shipped.points, "format": shipped.formats}
    write_held_out(tmp_path / "again.csv", ways)
    assert (tmp_path / "again.csv").read_bytes() == held_out_of(FILE).read_bytes()
