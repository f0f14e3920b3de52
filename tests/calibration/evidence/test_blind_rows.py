"""Rows found afterwards are predicted as a plan would, each of them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from kvpareto.calibration.evidence.blind_rows import apart_table, models_of_rows
from kvpareto.calibration.fit.interval_widths import (
    BASES,
    FAMILY,
    OWN,
    SISTER,
    STRANGER,
    as_planned,
)
from kvpareto.calibration.fit.mixed_effects import KnownModel
from kvpareto.calibration.fit.published import FOLDER, read_models
from kvpareto.calibration.fit.published_more import APART, BLIND, LATER, more_rows
from kvpareto.planner.accuracy.predict import published

DOCS = Path(__file__).parents[3] / "docs" / "accuracy.md"
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


def on_the_page(name: str) -> str:
    text = DOCS.read_text(encoding="utf-8")
    return text.split(f"<!-- {name} -->\n")[1].split("\n<!-- end -->")[0]


def numbers(table: str) -> dict[str, int]:
    lines = re.findall(r"^\| ([^|]+) \| (\d+) \|", table, flags=re.MULTILINE)
    return {name: int(count) for name, count in lines}


def test_the_page_has_all_of_them() -> None:
    counts = numbers(on_the_page("blind"))
    assert counts["weights alone"] + counts["cache"] == len(more_rows(FOLDER, [BLIND]))


def test_the_page_has_all_that_no_fit_has_as_the_shipped_fit_predicts_them() -> None:
    table = on_the_page("caches")
    counts = numbers(table)
    assert counts["cache"] + counts["weights alone, 4 bits"] == len(more_rows(FOLDER, APART))
    assert counts["found after it"] == len(more_rows(FOLDER, [LATER]))
    assert sum(counts[basis] for basis in BASES) == counts["cache"]
    assert table == apart_table(models_of_rows())


def test_readme_says_what_the_page_says() -> None:
    lines = (line.split(" | ") for line in on_the_page("caches").splitlines()[2:])
    errors = {name.removeprefix("| "): [float(c) for c in cells[1:6]] for name, *cells in lines}
    mae, _, lossless, _, held = (100 * value for value in errors["cache"])
    mae_later, _, _, _, held_later = (100 * value for value in errors["found after it"])
    readme = (DOCS.parents[1] / "README.md").read_text(encoding="utf-8")
    assert (
        f"mean error {mae:.1f} points (no loss {lossless:.1f}), 90 % intervals hold {held:.0f} %; "
        "of the 86 found after the form was chosen "
        f"{mae_later:.1f} points and {held_later:.0f} % (" in readme
    )
