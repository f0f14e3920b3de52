"""Parts of the left-out rows that are shown apart."""

from dataclasses import replace

import numpy as np

from kvpareto.calibration.evidence.accuracy_tables import cache_parts
from kvpareto.calibration.fit.accuracy_rows import read_rows
from kvpareto.calibration.fit.cross_validation import HeldOut
from kvpareto.calibration.fit.mixed_effects import KnownModel
from kvpareto.calibration.fit.published import FOLDER, read_models

MODELS = {line["key"]: KnownModel.read(line) for line in read_models(FOLDER / "models.csv")}
ROW = replace(
    read_rows(FOLDER / "accuracy.csv")[0], model="llama-2-7b", k_bits=4.0, v_bits=4.0, context=8192
)


def test_parts_of_caches_are_by_keys_bits_and_context() -> None:
    rows = (
        ROW,
        replace(ROW, model="qwen2.5-7b", v_bits=2.0),
        replace(ROW, model="qwen3-8b", context=16384),
        replace(ROW, k_bits=1.5, v_bits=16.0),
        replace(ROW, k_bits=16.0, v_bits=16.0, weight_bits=4.0),  # no cache
    )
    nothing = np.zeros(len(rows))
    held_out = HeldOut(rows, nothing, nothing, np.zeros((2, 1, len(rows))))
    assert cache_parts(held_out, MODELS) == {
        "cache, 2 bits on a side": [1, 3],
        "cache, beyond 8,192 tokens": [2],
        "cache, biased keys": [1],
        "cache, normalized keys": [2],
        "cache, plain keys": [0, 3],
    }
