"""Llama 4's aligned chunks: a token sees its own chunk, counted from its sequence's beginning."""

import pytest

from tests.support.models.hybrid_models import (
    check_cache_bytes,
    check_equals_transformers,
    hybrid,
)
from tests.support.runtime_builders import TOLERANCE, relative_error, session

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("chunk", ["", "+pc5", "+pc9"])
def test_sixteen_bits_equal_transformers(chunk: str) -> None:
    """Chunks of 9 tokens; temperature of attention grows with the position."""
    model = hybrid("llama4_text")
    for layer in model.model.layers:
        layer.self_attn.floor_scale, layer.self_attn.attn_temperature_tuning = 4, True
    check_equals_transformers(model, "w16a16-k16v16" + chunk, prompt=31, tokens=48)


def test_the_cache_takes_what_the_planner_counts() -> None:
    check_cache_bytes(hybrid("llama4_text"))


def test_padding_is_not_counted() -> None:
    """A shorter prompt beside a longer one, chunks counted from where each begins."""
    model = hybrid("llama4_text")
    prompts = [list(range(10, 31)), list(range(40, 54))]
    with session(model, "w16a16-k16v16", tokens=40, batch=2) as run:
        together = run.prefill(prompts)
    for row, prompt in enumerate(prompts):
        with session(model, "w16a16-k16v16", tokens=40) as run:
            assert relative_error(together[row], run.prefill(prompt)[0]) < TOLERANCE
