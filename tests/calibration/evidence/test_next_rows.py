"""The table of the last rows has each of them once, by what its prediction rests on."""

import re
from pathlib import Path

from kvpareto.calibration.evidence.blind_rows import BASES, foreseen
from kvpareto.calibration.evidence.marked_tables import shown_table
from kvpareto.calibration.evidence.next_rows import largest, models_of_next, next_table
from kvpareto.calibration.fit.published import FOLDER
from kvpareto.calibration.fit.published_more import CACHE, NEXT, more_rows
from kvpareto.planner.accuracy.predict import published

DOCS = Path(__file__).parents[3] / "docs"
README = Path(__file__).parents[3] / "README.md"
ROWS = more_rows(FOLDER, (CACHE,))
MODELS = models_of_next()


def test_parts_add_up() -> None:
    table = next_table(published(), ROWS, MODELS)
    lines = re.findall(r"^\| ([^|]+) \| (\d+) \|", table, flags=re.MULTILINE)
    counts = {name: int(count) for name, count in lines}
    quantized = sum(row.quantizes_cache for row in ROWS)
    assert counts["cache"] == counts["cache, no latents"] == quantized
    assert sum(counts.get(f"{basis}, no latents", 0) for basis in BASES) == quantized
    assert counts["models with key biases"] + counts["models without"] == quantized
    alone = [name for name in counts if name.startswith("weights alone")]
    assert alone == ["weights alone, 4 bits"]
    assert counts[alone[0]] == len(ROWS) - quantized


def test_the_largest_errors_come_first() -> None:
    predicted, *_ = foreseen(published(), ROWS, MODELS)
    errors = [abs(p - row.retention) for p, row in zip(predicted, ROWS, strict=True)]
    first = largest(published(), ROWS, MODELS, 3).splitlines()[2:]
    assert len(first) == 3
    shown = [[float(cell) for cell in line.split(" | ")[6:8]] for line in first]
    assert [round(abs(kept - said), 2) for kept, said in shown] == [
        round(error, 2) for error in sorted(errors, reverse=True)[:3]
    ]


def test_the_page_has_what_the_shipped_fit_says_of_them() -> None:
    assert shown_table("next", DOCS) == next_table(published(), more_rows(FOLDER, (NEXT,)), MODELS)


def test_readme_says_what_the_page_says() -> None:
    cells = shown_table("next", DOCS).splitlines()[2].strip("| ").split(" | ")
    mae, _, lossless, _, held, _, _, below = (100 * float(cell) for cell in cells[2:])
    readme = README.read_text(encoding="utf-8")
    assert (
        f"{cells[1]} published rows, a third at 2 bits, found while the fit was changed, predicted "
        f"once by the one that ships | mean error {mae:.1f} points (no loss {lossless:.1f}), 90 % "
        f"intervals hold {held:.0f} %, below nine tenths {below:.0f} % (" in readme
    )
