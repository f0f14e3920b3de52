"""The Pareto frontier against its definition, on random points with and without ties."""

import numpy as np
import numpy.typing as npt
import pytest

from kvpareto.planner.search.pareto import pareto_mask


def by_definition(costs: npt.NDArray[np.generic]) -> list[bool]:
    """Every point against every other; `costs` is [points, objectives]."""
    rows = [tuple(row) for row in costs.tolist()]

    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    return [not any(dominates(other, row) for other in rows) for row in rows]


def columns(costs: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
    return list(costs.T)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("levels", [2, 5, 40, 10**6], ids=lambda n: f"levels{n}")
def test_random_points_match_the_definition(objectives: int, levels: int) -> None:
    rng = np.random.default_rng(7 * objectives + levels)
    for points in (1, 2, 17, 64, 131, 400):
        costs = rng.integers(0, levels, size=(points, objectives))
        assert pareto_mask(columns(costs)).tolist() == by_definition(costs)


def test_correlated_floats_match_the_definition() -> None:
    # Memory against accuracy: most points lie close to the frontier, the hard case.
    rng = np.random.default_rng(3)
    memory = rng.random(500)
    costs = np.stack([memory, 1 - memory + 0.05 * rng.random(500), np.round(memory, 1)], axis=1)
    kept = pareto_mask(columns(costs))
    assert kept.tolist() == by_definition(costs)
    assert 20 < kept.sum() < 500


def test_many_points_keep_exactly_those_nothing_beats() -> None:
    # Too many for the definition: build the answer in. Points above a plane x + y + z = 0 that
    # have a witness below them cannot be on the frontier; those on the plane all are.
    rng = np.random.default_rng(11)
    plane = rng.integers(-200, 200, size=(800, 2))
    on = np.unique(np.column_stack([plane, -plane.sum(axis=1)]), axis=0)
    above = on[rng.integers(0, len(on), 60_000)] + rng.integers(1, 300, size=(60_000, 3))
    costs = np.concatenate([above, on]).astype(float)
    kept = pareto_mask(columns(costs))
    assert not kept[: len(above)].any()
    assert kept[len(above) :].all()


def test_sums_that_round_to_the_same_number_do_not_hide_a_dominated_point() -> None:
    # 0.5 + 1e-18 == 0.5: forty points with the sum of the one that dominates them, before it.
    dominated, dominator, far = (0.5, 1e-18, 0.0), (0.5, 0.0, 0.0), (0.0, 1.0, 1.0)
    costs = np.array([dominated] * 40 + [dominator, far, (1.0, 1.0, 1.0)])
    assert pareto_mask(columns(costs)).tolist() == [False] * 40 + [True, True, False]


def test_equal_points_all_stay() -> None:
    costs = [np.array([1, 1, 2, 1]), np.array([3, 3, 3, 3])]
    assert pareto_mask(costs).tolist() == [True, True, False, True]


def test_no_points_have_an_empty_frontier() -> None:
    assert pareto_mask([np.array([]), np.array([])]).tolist() == []
