"""The design of experiments against a simulated truth, and its parts by hand."""

from itertools import product

import numpy as np
import pytest

from kvpareto.calibration.design.candidates import anchors, chunk_for, enumerate_candidates
from kvpareto.calibration.design.next_run import (
    Candidates,
    Measurement,
    NextRun,
    Posterior,
    choose,
    frontier_error,
    log_odds,
)
from kvpareto.planner.formats.configuration import Granularity
from kvpareto.planner.load_model import load_model

RUNS = 8
SEEDS = range(20)
FORMATS = list(product((16, 8, 4, 2), (16, 8, 4, 2), (32, 64, 128), (False, True)))


def simulated(seed: int) -> tuple[Candidates, np.ndarray]:
    """96 formats and a model that differs from the prior in ways the prior does not know:
    its keys, its values, its groups and what rotation does to it, and each format by chance."""
    rng = np.random.default_rng(seed)
    k, v, group, turned = (np.array(column, dtype=float) for column in zip(*FORMATS, strict=True))

    def odds(keys: float, values: float, wide: float, gain: float) -> np.ndarray:
        noise = np.exp(keys) * (2**k - 1) ** -2 * (group / 64) ** wide * np.exp(-gain * turned)
        noise += np.exp(values) * (2**v - 1) ** -2 * (group / 64) ** wide
        return 1.3 * np.log(noise + 1e-12)

    prior = odds(2.0, 0.5, 0.5, 0.5)
    shifts = rng.normal(0, (1.5, 1.0, 0.3, 0.7))
    true = odds(2.0 + shifts[0], 0.5 + shifts[1], 0.5 + shifts[2], 0.5 + shifts[3])
    true += rng.normal(0, 0.2, len(true))
    memory = (100 * (k + v) + 3200 * 2 / group + 0 * turned).astype(np.int64)
    kept = [1 / (1 + np.exp(prior + shift)) for shift in (0.0, 2.5, -2.5)]
    place = np.stack([4 - np.log2(k), 4 - np.log2(v), np.log2(group) / 2, 0.7 * turned], axis=1)
    return Candidates(memory, place, *kept), 1 / (1 + np.exp(true))


def error_after(seed: int, runs: int, *, at_random: bool) -> float:
    """Frontier error after `runs` runs: 16/16, 4/4 and 2/2 first, then chosen or random ones."""
    candidates, truth = simulated(seed)
    noise = np.random.default_rng(1000 + seed)
    rng = np.random.default_rng(2000 + seed)
    measured: dict[int, Measurement] = {}

    def run(i: int) -> None:
        measured[i] = Measurement(truth[i] + noise.normal(0, 0.01), 0.01)

    for bits in (16, 4, 2):
        run(FORMATS.index((bits, bits, 64, False)))
    while len(measured) < runs:
        left = [i for i in range(len(FORMATS)) if i not in measured]
        found = choose(Posterior(candidates, measured), rng)
        run(int(rng.choice(left)) if at_random else int(found.index))  # type: ignore[arg-type]
    return frontier_error(candidates.memory, truth, Posterior(candidates, measured).retention)


def test_chosen_runs_find_the_frontier_sooner_than_random_ones() -> None:
    chosen = np.mean([error_after(seed, RUNS, at_random=False) for seed in SEEDS])
    random = np.mean([error_after(seed, RUNS, at_random=True) for seed in SEEDS])
    assert chosen < 0.8 * random
    assert chosen < 0.01


def two_candidates() -> Candidates:
    """The dearer one is believed to keep more; both are uncertain."""
    return Candidates(
        memory=np.array([10, 20]),
        place=np.array([[0.0], [9.0]]),
        retention=np.array([0.8, 0.9]),
        low=np.array([0.5, 0.7]),
        high=np.array([0.95, 0.97]),
    )


def test_nothing_is_left_to_choose_when_all_is_measured() -> None:
    both = {0: Measurement(0.8, 1e-6), 1: Measurement(0.9, 1e-6)}
    found = choose(Posterior(two_candidates(), both), np.random.default_rng(0))
    assert found.index is None
    assert found.expected_error < 0.005
    before = choose(Posterior(two_candidates(), {}), np.random.default_rng(0))
    assert before.index is not None
    assert before.expected_error > found.expected_error


def test_a_measurement_moves_its_candidate_and_its_neighbours_with_it() -> None:
    candidates = Candidates(
        memory=np.array([10, 20, 30]),
        place=np.array([[0.0], [0.1], [9.0]]),
        retention=np.full(3, 0.9),
        low=np.full(3, 0.5),
        high=np.full(3, 0.98),
    )
    after = Posterior(candidates, {0: Measurement(0.6, 0.01)}).retention
    assert after[0] == pytest.approx(0.6, abs=0.02)
    assert after[0] - 0.05 < after[1] < after[2] < 0.9  # the far one by the common part alone


def test_frontier_error_by_hand() -> None:
    memory = np.array([10, 20, 20, 30])
    truth = np.array([0.5, 0.9, 0.6, 0.95])
    believed = np.array([0.5, 0.6, 0.9, 0.8])
    # Level 10: the only one. Level 20: takes 0.6 for 0.9. Level 30: still 0.6 for 0.95.
    assert frontier_error(memory, truth, believed) == pytest.approx((0 + 0.3 + 0.35) / 3)
    assert frontier_error(memory, truth, truth) == 0


def test_log_odds_bound_what_cannot_be_told_apart() -> None:
    assert log_odds(np.array(0.5)) == 0
    assert log_odds(np.array(1.0)) == log_odds(np.array(1.2)) == pytest.approx(-6.2126, abs=1e-4)


def test_choice_is_repeatable() -> None:
    candidates, _ = simulated(3)
    choices = [choose(Posterior(candidates, {}), np.random.default_rng(5)) for _ in range(2)]
    assert choices[0] == choices[1]
    assert isinstance(choices[0], NextRun)


def test_candidates_are_a_part_of_the_space() -> None:
    """One window, the longest; blocks of 32 and 64 tokens; chunks as a calibration runs them."""
    spec = load_model("meta-llama/Llama-3.2-1B-Instruct", offline=True)
    configs, candidates = enumerate_candidates(spec, 8192, (16,))
    assert len(configs) == len(set(configs)) == len(candidates.memory)
    assert {config.residual for config in configs} == {0, 128}
    blocks = {(config.granularity, config.block_tokens) for config in configs}
    assert blocks == {
        (Granularity.PER_TOKEN, None), (Granularity.PER_TENSOR, None),
        (Granularity.PER_CHANNEL, 32), (Granularity.PER_CHANNEL, 64),
        (Granularity.PER_BLOCK, 64),
    }  # fmt: skip
    assert {config.chunk for config in configs} == {chunk_for(8192)}
    assert {config.weight_bits for config in configs} == {16}


def test_candidates_hold_the_anchors_and_know_their_memory() -> None:
    spec = load_model("meta-llama/Llama-3.1-8B-Instruct", offline=True)
    configs, candidates = enumerate_candidates(spec, 8192, (16, 4))
    first = anchors((16, 4), chunk_for(8192), 8)
    assert [str(c) for c in first] == [
        "w16a16-k16v16+pc1024",
        "w16a16-k8v8+pc1024",
        "w16a16-k4v4+pc1024",
        "w16a16-k2v16+pc1024",
        "w16a16-k16v2+pc1024",
        "w4a16-k16v16+pc1024",
    ]
    longer = anchors((16, 4), chunk_for(8192), 16)
    assert longer == [one for one in first if str(one) != "w16a16-k8v8+pc1024"]
    assert set(first) <= set(configs)
    assert len(configs) == len(set(configs)) == len(candidates.memory)
    unquantized, quarter = (configs.index(first[i]) for i in (0, 5))
    assert candidates.memory[quarter] < 0.5 * candidates.memory[unquantized]
    assert candidates.retention[unquantized] == 1


def test_several_frontiers_are_searched_as_one() -> None:
    """The second frontier is known; what is run next is on the first."""
    one = two_candidates()
    both = Candidates(
        memory=np.tile(one.memory, 2),
        place=np.concatenate([one.place, one.place + 50]),
        retention=np.tile(one.retention, 2),
        low=np.tile(one.low, 2),
        high=np.tile(one.high, 2),
        front=np.array([1, 1, 2, 2]),
    )
    known = {2: Measurement(0.8, 1e-6), 3: Measurement(0.9, 1e-6)}
    found = choose(Posterior(both, known), np.random.default_rng(0))
    assert found.index in (0, 1)
    alone = choose(Posterior(one, {}), np.random.default_rng(0))
    assert found.expected_error < alone.expected_error
    assert [list(front) for front in both.fronts()] == [[0, 1], [2, 3]]
