"""A few runs of a calibration, replayed on rows that are there, against all the others."""

from dataclasses import replace

import pytest

from kvpareto.calibration.evidence.replay import by_chance, chosen_runs, replay
from kvpareto.calibration.evidence.replayed_models import (
    FIFTH_OUTLIERS,
    FOURTH,
    FOURTH_OUTLIERS,
    SIXTH_OUTLIERS,
    THIRD,
    calibrated,
    pretrained,
    recall_grid,
)
from kvpareto.calibration.fit import profile
from kvpareto.calibration.fit.profile import starting_fit
from kvpareto.planner.accuracy.model_features import shape_of
from kvpareto.planner.accuracy.predict import published
from kvpareto.planner.accuracy.predictor import Predictor
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model

SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"
CODER = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
GEMMA = "google/gemma-3-270m"
LARGER_CODER = "Qwen/Qwen2.5-Coder-1.5B-Instruct"


@pytest.mark.parametrize(
    ("name", "points", "error", "error_usable"),
    # 0.024, 0.015, 0.025, 0.020, 0.068, 0.013 and 0.008, where 0.9 is kept 0.005 to 0.014. What
    # formats make of the attention was read of the first two and of the last two, which are blind
    # (0.018, 0.029, 0.039 and 0.049 without). Of the other three the weights are not kept: the
    # fourth with outliers is more than twice the 0.03 that is asked for.
    [
        ("recall", 484, 0.025, 0.01),
        ("recall-outliers", 484, 0.02, 0.01),
        (THIRD, 133, 0.033, 0.0125),
        (FOURTH, 124, 0.025, 0.01),
        (FOURTH_OUTLIERS, 124, 0.07, 0.0145),
        (FIFTH_OUTLIERS, 101, 0.018, 0.012),
        (SIXTH_OUTLIERS, 82, 0.013, 0.009),
    ],
)
def test_sixteen_runs_foresee_the_grid(
    name: str, points: int, error: float, error_usable: float
) -> None:
    found = replay(recall_grid(name), 16)
    assert found.points == points
    assert found.error <= error
    assert found.error_usable <= error_usable
    assert found.promise <= 0.01
    assert found.promise_small <= 0.01
    assert found.short <= 0.01
    # the calibration's own word for the error, 0.7 to 2.6 of it
    assert 0.6 * found.error <= found.expected <= 3 * found.error


@pytest.mark.parametrize(("hub_id", "error"), [(SMOL, 0.027), (CODER, 0.053)])
def test_a_fifth_of_a_pretrained_models_runs_finds_its_frontier(hub_id: str, error: float) -> None:
    """0.025 and 0.051; 0.051 and 0.090 with the runs chosen for the frontier alone."""
    measured = pretrained(hub_id)
    found = replay(measured, round(len(measured.rows) / 5))
    assert found.error <= error
    assert found.promise <= found.chance <= 0.025
    assert found.short <= 0.01
    assert found.error <= found.expected <= 3 * found.error


@pytest.mark.parametrize(("hub_id", "points", "error"), [(SMOL, 98, 0.042), (CODER, 118, 0.050)])
def test_sixteen_runs_of_a_pretrained_model_foresee_what_it_would_measure(
    hub_id: str, points: int, error: float
) -> None:
    """0.040 and 0.048, of which sampling alone is 0.024 and 0.017; 0.066 without the attention."""
    measured = calibrated(hub_id)
    found = replay(measured, 16)
    assert found.points == points
    assert found.error <= error
    assert found.error_usable <= 0.026
    assert found.short <= 0.045  # of two tasks that the model hardly does
    assert 0.4 * found.error <= found.expected <= 3 * found.error
    assert replay(replace(measured, attention=None), 16).error > 1.15 * found.error


@pytest.mark.parametrize(
    ("hub_id", "points", "error"), [(GEMMA, 161, 0.055), (LARGER_CODER, 49, 0.024)]
)
def test_sixteen_runs_of_a_model_that_came_after_the_design(
    hub_id: str, points: int, error: float
) -> None:
    """0.052 and 0.021, of which sampling alone is 0.018 and 0.007; 0.057 and 0.051 without what the
    attention says."""
    found = replay(calibrated(hub_id), 16)
    assert found.points == points
    assert found.error <= error
    assert found.error_usable <= 0.011
    assert found.promise <= found.chance
    assert found.short == 0.0


def test_the_largest_of_several_sampling_errors() -> None:
    assert by_chance([]) == by_chance([0.0]) == 0.0
    assert by_chance([0.01, 0.0]) == pytest.approx(0.0196, abs=1e-5)  # of one, 1.96 of its own
    assert by_chance([0.01] * 10) == pytest.approx(0.028, abs=1e-4)  # 0.95 ** 0.1 lie within 2.8


def test_both_sides_are_measured_apart_before_anything_is_chosen() -> None:
    """Of the grid, what is nearest to the anchors: keys alone at 2 bits, values alone at 2 bits."""
    runs = chosen_runs(recall_grid("recall"), 4)
    sides = [(config.k_bits, config.v_bits) for config in runs]
    assert sides == [(4, 4), (2, 16), (16, 2), (16, 16)]
    assert runs[-1].weight_bits == 4


def test_shares_of_the_cache_count_scales() -> None:
    measured = recall_grid("recall")
    half, coarse, fine = (
        measured.share(Configuration.parse(text))
        for text in ("w16a16-k8v8", "w16a16-k4v4", "w16a16-k4v4-g32")
    )
    assert 0.25 < coarse < fine < half < 0.6


def test_a_calibration_reads_the_keys_of_a_model_whose_shape_has_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows of its shape that were fitted without a table of keys are left out; those that were
    fitted with one are kept."""
    spec = load_model("Qwen/Qwen2.5-Coder-1.5B-Instruct", offline=True)
    assert starting_fit(spec) is published()
    shape = list(shape_of(spec))
    models = {
        key: {**model, "read": "" if model["shape"] == shape else model["read"]}
        for key, model in published().payload["models"].items()
    }
    unread = Predictor({**published().payload, "models": models})
    assert unread.models.of(spec).features.ranges is None
    monkeypatch.setattr(profile.accuracy, "published", lambda: unread)
    start = starting_fit(spec).models.of(spec)
    assert start.features.ranges is not None
    assert start.provenance == "transferred"
    monkeypatch.undo()
    same = load_model("Qwen/Qwen2.5-7B-Instruct", offline=True)
    assert starting_fit(same) is published()
    without_biases = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
    assert starting_fit(without_biases) is published()
