"""What an exact prompt keeps, and what float keys lose on biases."""

from dataclasses import replace

import numpy as np
import pytest

from kvpareto.planner.accuracy.formula import FormatArrays
from kvpareto.planner.accuracy.model_features import Features
from kvpareto.planner.accuracy.predict import published
from kvpareto.planner.accuracy.predictor import Predictor

PREDICTOR = published()
PLAIN = Features(None, 8.0, False, False, 128, 32, 1.0)
BIASED = replace(PLAIN, qkv_bias=True)
LOST = 1e-3
"""Bits of a cache that holds nothing."""


def kept(
    kind: str,
    bits: float,
    features: Features = PLAIN,
    *,
    exact: bool = False,
    floats: bool = False,
    predictor: Predictor = PREDICTOR,
) -> float:
    one = np.ones(1)
    formats = FormatArrays(
        k_bits=bits * one,
        v_bits=bits * one,
        granularity=np.zeros(1, dtype=int),
        group=64 * one,
        block=one,
        smoothing=0 * one,
        rotate_k=0 * one,
        rotate_v=0 * one,
        residual=0 * one,
        exact_prompt=exact * one,
        float_keys=floats * one,
    )
    effects = predictor.models.unseen(features)
    cache, _ = predictor.retention(
        effects, formats, formats, np.zeros((3, 1)), 4096, 16 * one, (kind,), (0.0,)
    )
    return float(cache[0, 0, 0])


@pytest.mark.parametrize("kind", ["reasoning", "retrieval", "reading", "likelihood"])
def test_where_the_cache_holds_nothing_the_first_token_is_left(kind: str) -> None:
    first = PREDICTOR.payload["kind_shapes"][kind]["first"]
    assert kept(kind, LOST, exact=True) == pytest.approx(first, abs=1e-3)
    assert kept(kind, LOST) == pytest.approx(0.0, abs=1e-3)
    assert kept(kind, 16, exact=True) == 1.0


def test_short_answers_rest_on_their_first_token_and_long_chains_do_not() -> None:
    first = {k: v["first"] for k, v in PREDICTOR.payload["kind_shapes"].items()}
    assert first["long_reasoning"] < first["reasoning"] < first["retrieval"] < first["reading"]
    assert first["perplexity"] == 0.0  # no answer, no first token


def test_a_payload_of_before_knows_no_first_token() -> None:
    shapes = {
        kind: {name: value for name, value in shape.items() if name != "first"}
        for kind, shape in PREDICTOR.payload["kind_shapes"].items()
    }
    before = Predictor({**PREDICTOR.payload, "kind_shapes": shapes})
    assert kept("reading", LOST, exact=True, predictor=before) == pytest.approx(0.0, abs=1e-3)


def test_floats_lose_more_than_integers_on_biases_alone() -> None:
    lost, as_integers = (
        1.0 - kept("long_reasoning", 5, BIASED, floats=floats) for floats in (True, False)
    )
    assert lost > 2 * as_integers
    assert kept("long_reasoning", 5, floats=True) == kept("long_reasoning", 5)
