"""Rows found afterwards are predicted as a plan would, each of them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from kvpareto.calibration.evidence.blind_rows import other_rows
from kvpareto.calibration.evidence.marked_tables import shown_table
from kvpareto.calibration.fit.interval_widths import (
    FAMILY,
    OWN,
    SISTER,
    STRANGER,
    as_planned,
)
from kvpareto.calibration.fit.mixed_effects import KnownModel
from kvpareto.calibration.fit.published import FOLDER, clean, read_models
from kvpareto.calibration.fit.published_more import BLIND, LATER, more_rows
from kvpareto.planner.accuracy.predict import published

DOCS = Path(__file__).parents[3] / "docs"
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


def test_latents_of_no_family_are_predicted_as_a_plan_does() -> None:
    features = replace(LLAMA.features, family="new")
    own, latents = (
        as_planned(published(), replace(LLAMA, key="another", features=features, shape=shape), {})[
            0
        ]
        for shape in ((4096, 32, 8), (4096, 32, 0))
    )
    assert latents.doubt > own.doubt
    *cache, weight = latents.sd / own.sd
    assert min(cache) > 1
    assert weight == 1


def numbers(table: str) -> dict[str, int]:
    lines = re.findall(r"^\| ([^|]+) \| (\d+) \|", table, flags=re.MULTILINE)
    return {name: int(count) for name, count in lines}


def test_the_page_has_all_of_them() -> None:
    counts = numbers(shown_table("blind", DOCS))
    assert counts["weights alone"] + counts["cache"] == len(more_rows(FOLDER, [BLIND]))


def test_a_fit_without_tables_has_none_of_their_rows() -> None:
    left = more_rows(FOLDER, [LATER])
    assert all(row in clean()[0] for row in left)
    assert not set(map(repr, left)) & set(map(repr, other_rows([LATER])))
