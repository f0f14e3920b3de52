"""Rows found afterwards are predicted as a plan would, each of them."""

import re
from dataclasses import replace

import pytest

from kvpareto.calibration.evidence.blind_rows import FAMILY, OWN, SISTER, STRANGER, as_planned
from kvpareto.calibration.evidence.refit_published import DOCS
from kvpareto.calibration.fit.mixed_effects import KnownModel
from kvpareto.calibration.fit.published import FOLDER, read_models
from kvpareto.calibration.fit.published_more import BLIND, more_rows
from kvpareto.planner.accuracy.predict import published

MODELS = {m.key: m for m in map(KnownModel.read, read_models(FOLDER / "models.csv"))}
LLAMA = MODELS["llama-3.1-8b"]


@pytest.mark.parametrize(
    ("model", "basis"),
    [
        (LLAMA, OWN),
        (replace(LLAMA, key="another"), SISTER),
        (replace(LLAMA, key="another", shape=(4096, 30, 8)), FAMILY),
        (replace(LLAMA, key="another", features=replace(LLAMA.features, family="new")), STRANGER),
    ],
)
def test_a_prediction_rests_on_the_nearest_kin(model: KnownModel, basis: str) -> None:
    effects, found = as_planned(published(), model, MODELS)
    assert found == basis
    own = as_planned(published(), LLAMA, MODELS)[0]
    assert (effects.spread[0] > own.spread[0]) == (basis != OWN)


def test_the_page_has_all_of_them() -> None:
    table = DOCS.read_text(encoding="utf-8").split("<!-- blind -->")[1].split("<!-- end -->")[0]
    counts = dict(re.findall(r"^\| ([^|]+) \| (\d+) \|", table, flags=re.MULTILINE))
    assert int(counts["weights alone"]) + int(counts["cache"]) == len(more_rows(FOLDER, [BLIND]))
