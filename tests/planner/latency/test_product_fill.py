"""How far products of few rows fill the card."""

from dataclasses import replace

import numpy as np
import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.latency.card import Card
from kvpareto.planner.latency.efficiency import shipped
from kvpareto.planner.latency.job import ConfigurationAxes, job_of
from kvpareto.planner.latency.product_fill import (
    mean_inputs,
    parts_slack,
    parts_work,
    row_inputs,
    slack,
    wide_slack,
)
from kvpareto.planner.latency.roofline_products import chunk, few_rows
from kvpareto.planner.load_model import load_model
from kvpareto.planner.workload import Workload

LLAMA, PHI = "meta-llama/Llama-3.1-8B-Instruct", "microsoft/Phi-3.5-mini-instruct"
HARDWARE, OURS = find_gpu("H200"), shipped(KVPARETO)


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
    llama = load_model(LLAMA, offline=True)
    assert wide_slack(llama) == pytest.approx(taken / every)
    # Narrow models leave more of a card idle.
    assert wide_slack(load_model("Qwen/Qwen2.5-3B-Instruct", offline=True)) > 1.6 * wide_slack(
        llama
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "gated", "rows", "tiles"),
    [
        (4096, 6144, False, 16, 4),  # 96 blocks of two strips, 32 units for eight warps each
        (4096, 28_672, True, 16, 16),  # 112 blocks, eight strips of 16 units each for two warps
        (4096, 28_672, True, 8, 1.35 * 896 * 32 / 132 / 16),  # as the card reads
        (18_944, 3584, False, 16, 10 + 1 + 4 * 32 * 16 * 4 / 10_000),  # four share; their sums
    ],
)
def test_a_product_of_few_rows_is_done_when_its_busiest_warp_is(
    inputs: int, outputs: int, gated: bool, rows: int, tiles: float
) -> None:
    full = inputs / 128 * (outputs / 32) / (132 * 16)
    assert parts_slack(inputs, outputs, gated, rows) == pytest.approx(tiles / full)


@pytest.mark.parametrize(
    ("inputs", "outputs", "gated"),
    [
        (4160, 4096, False),  # 32.5 units of 128
        (4096, 4112, False),  # 128.5 strips of 32
        (4096, 16, False),
        (4096, 2 * 4112, True),  # a gate of 128.5 strips, though both are 257
        (4096, 32, True),
    ],
)
def test_a_product_that_parts_cannot_cut_is_not_its(inputs: int, outputs: int, gated: bool) -> None:
    assert parts_slack(inputs, outputs, gated, 16) is None


def test_what_parts_takes_of_a_model() -> None:
    """All products of the runtime's own layers, what has a gate or follows it of others."""
    llama, phi = (load_model(name, offline=True) for name in (LLAMA, PHI))
    every = 32 * 4096 * (6144 + 4096 + 3 * 14_336)
    taken, slow = parts_work(llama, 16)
    assert taken == every
    assert 1.1 < slow / taken < 1.4
    assert parts_work(phi, 16)[0] == 32 * 3 * 3072 * 8192


def test_inputs_of_llamas_products() -> None:
    llama = load_model(LLAMA, offline=True)
    inputs, outputs = 3 * 4096 + 14_336, 6144 + 4096 + 28_672 + 4096
    linear = 32 * 4096 * (6144 + 4096 + 3 * 14_336)
    assert row_inputs(llama, linear) == 32 * inputs
    assert mean_inputs(llama, linear) == pytest.approx(linear / 32 / outputs)
    # What is not known as a product is square.
    assert row_inputs(llama, linear + 4096**2) == 32 * inputs + 4096


def test_a_chunks_products_take_longer_in_narrow_models() -> None:
    axes = ConfigurationAxes.of(Configuration.parse("w16a16-k16v16"), 1)
    llama = load_model(LLAMA, offline=True)
    of = job_of(llama, Workload(8192, 64), axes)
    found = [
        float(chunk(of, 4096.0, Card(HARDWARE, x)).item())
        for x in (OURS, replace(OURS, matmul_inputs=0.0))
    ]
    inputs = (4096 * (6144 + 4096 + 28_672) + 14_336 * 4096) / (6144 + 4096 + 28_672 + 4096)
    assert found[0] / found[1] == pytest.approx(1 + OURS.matmul_inputs / inputs)


@pytest.mark.parametrize(("model", "ready"), [(LLAMA, 1.0), (LLAMA, 0.0), (PHI, 1.0)])
def test_rows_that_are_not_ready_are_swept(model: str, ready: float) -> None:
    """Before, and where layers are not the runtime's own, norms leave no whole numbers: there a
    gate alone does."""
    spec = load_model(model, offline=True)
    axes = ConfigurationAxes.of(Configuration(weight_bits=4), 1)
    job = replace(job_of(spec, Workload(4000, 64, batch=8), axes), ready_rows=ready)
    card, width = Card(HARDWARE, OURS), spec.layers[0].ffn.width  # type: ignore[union-attr]
    products = {(spec.hidden, 2 * width): True, (width, spec.hidden): False}
    if model == LLAMA:
        products |= {(4096, 6144): False, (4096, 4096): False}
    slow = [n * m * (parts_slack(n, m, gate, 8) or 0) for (n, m), gate in products.items()]
    taken = len(spec.layers) * sum(n * m for n, m in products) * ready
    parts = 2 * len(spec.layers) * sum(slow) * (8 + OURS.parts_unpacked) / card.parts_rows * ready
    rate, stored = OURS.sweep * card.stream, np.asarray(job.weight).item()
    swept = (float(job.linear) - taken) * (stored / rate + 2 * 8 / card.few_rows)
    found = float(np.asarray(few_rows(job, 8.0, card)).item())
    assert found == pytest.approx(parts + swept, rel=1e-6)
