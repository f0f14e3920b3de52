"""The table of the last rows has each of them once, by what its prediction rests on."""

import re

from kvpareto.calibration.evidence.blind_rows import BASES, foreseen
from kvpareto.calibration.evidence.next_rows import largest, models_of_next, next_table
from kvpareto.calibration.fit.published import FOLDER
from kvpareto.calibration.fit.published_more import CACHE, more_rows
from kvpareto.planner.accuracy.predict import published

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
