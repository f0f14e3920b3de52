"""How far products of 17 to 64 rows fill the card."""

import pytest

from kvpareto.planner.latency.product_fill import slack, wide_slack
from kvpareto.planner.load_model import load_model


@pytest.mark.parametrize(
    ("outputs", "blocks"),
    [
        (4096, 64),  # 16 blocks of 256 columns, four of which share the inputs
        (2048, 32),
        (6144, 96),
        (14_336, 112),  # 56, two share
        (28_672, 112),
        (33_792, 132),
    ],
)
def test_blocks_of_a_product_of_132_multiprocessors(outputs: int, blocks: int) -> None:
    assert slack(outputs) == pytest.approx(132 / blocks)


def test_a_second_round_is_one_for_all() -> None:
    assert slack(256 * 133) == pytest.approx(2 * 132 / 133)


def test_llamas_products_by_hand() -> None:
    weights = {6144: 4096, 4096: 4096 + 14_336, 28_672: 4096}  # outputs: inputs
    taken = sum(inputs * outputs * slack(outputs) for outputs, inputs in weights.items())
    every = sum(inputs * outputs for outputs, inputs in weights.items())
    llama = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
    assert wide_slack(llama) == pytest.approx(taken / every)
    # Narrow models leave more of a card idle.
    assert wide_slack(load_model("Qwen/Qwen2.5-3B-Instruct", offline=True)) > 1.6 * wide_slack(
        llama
    )
