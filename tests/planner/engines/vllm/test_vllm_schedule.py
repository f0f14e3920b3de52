"""vLLM's scheduler in closed stretches, held to one that makes every step of every user."""

import random

import numpy as np
import pytest

from kvpareto.planner.engines.vllm import schedule as module
from kvpareto.planner.engines.vllm.schedule import Schedule, _Run, _scheduled, schedule

OF_STEPS = ("count", "decoding", "length", "finished")
OF_PIECES = ("piece_step", "piece_start", "piece_rows")
FIELDS = (*OF_STEPS, *OF_PIECES, "first", "last")


def step_by_step(plan: Schedule) -> dict[str, np.ndarray]:
    """The fields with every step of the order written out."""
    pieces = [np.flatnonzero(plan.piece_step == step) for step in range(len(plan.count))]
    each = [pieces[step] for step in plan.order]
    where = np.concatenate(each)
    found = {name: getattr(plan, name)[plan.order] for name in OF_STEPS}
    found |= {name: getattr(plan, name)[where] for name in OF_PIECES}
    found["piece_step"] = np.repeat(np.arange(len(each)), [len(some) for some in each])
    return found | {"first": plan.first, "last": plan.last}


def plain(users: int, prompt: int, output: int, chunk: int, at_once: int) -> dict[str, object]:
    """The same, user by user; steps in which nothing but decoding happens count as one."""
    done, made = [0] * users, [0] * users
    first, last = [0] * users, [0] * users
    found: dict[str, list[float]] = {name: [] for name in FIELDS}
    running: list[int] = []
    waiting = step = 0
    while waiting < users or running:
        while waiting < users and len(running) < at_once:
            running.append(waiting)
            waiting += 1
        decoding = [i for i in running if made[i]]
        filling = [i for i in running if not made[i]]
        times = 1 if filling else min(output - made[i] for i in decoding)
        length = sum(prompt + made[i] for i in decoding) / max(1, len(decoding))
        for i in decoding:
            made[i] += times
            last[i] = step
        free, finished = max(1, chunk - len(decoding)), 0
        for i in filling:
            rows = min(free, prompt - done[i])
            if not rows:
                break
            found["piece_step"].append(step)
            found["piece_start"].append(done[i])
            found["piece_rows"].append(rows)
            done[i] += rows
            free -= rows
            if done[i] == prompt:
                made[i], first[i], last[i] = 1, step, step
                finished += 1
        found["count"].append(times)
        found["decoding"].append(len(decoding))
        found["length"].append(length + (times - 1) / 2)
        found["finished"].append(finished)
        running = [i for i in running if made[i] < output]
        step += 1
    ends = {"first": list(map(float, first)), "last": list(map(float, last))}
    return found | ends


@pytest.mark.parametrize("seed", range(6))
def test_each_step_is_that_of_the_plain_scheduler(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(40):
        asked = (
            draw.randint(1, 30),
            draw.choice([1, 2, 3, 17, 64, 300]),
            draw.randint(1, 25),
            draw.choice([1, 2, 7, 16, 64, 500, 5000]),
            draw.randint(1, 35),
        )
        found, wanted = step_by_step(schedule(*asked)), plain(*asked)
        for name in FIELDS:
            assert np.array_equal(found[name], wanted[name]), (asked, name)


@pytest.mark.parametrize("seed", range(4))
def test_what_comes_again_is_repeated_as_it_was(seed: int) -> None:
    """Users enough that most of them are served in repeated stretches."""
    draw = random.Random(100 + seed)
    for _ in range(6):
        asked = (
            draw.randint(200, 500),
            draw.choice([1, 3, 17, 40]),
            draw.randint(1, 12),
            draw.choice([2, 7, 16, 50]),
            draw.choice([1, 3, 8, 30, 600]),
        )
        found, wanted = step_by_step(schedule(*asked)), plain(*asked)
        for name in FIELDS:
            assert np.array_equal(found[name], wanted[name]), (asked, name)


@pytest.mark.parametrize("at_once", [1, 50, 256, 65536])
def test_many_users_take_no_more_decisions_than_some(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[_Run] = []
    described = module._described

    def kept(run: _Run) -> Schedule:
        runs.append(run)
        return described(run)

    monkeypatch.setattr(module, "_described", kept)
    found = _scheduled.__wrapped__(65536, 777, 512, 2048, at_once)
    assert found.last[-1] == len(found.order) - 1
    assert found.prompt_rows[found.order].sum() == 65536 * 777
    assert len(runs[0].stretches) < 65536 / 5


def test_two_thousand_users_in_as_many_steps_as_their_prompts_take() -> None:
    """2,000 prompts of 16,384 tokens in chunks of 2,048, of which those that decode take a part."""
    found = schedule(2000, 16384, 512, 2048, 2000)
    assert found.prompt_rows[found.order].sum() == 2000 * 16384
    decoded = (found.count * found.decoding)[found.order].sum()
    assert decoded == 2000 * (512 - 1)  # the first token comes of the prompt
    filled = found.prompt_rows > 0
    assert (found.prompt_rows + found.decoding)[filled][:-1].max() == 2048
    assert len(found.order) < 20_000


def test_repeated_steps_are_described_once() -> None:
    found = schedule(3000, 32768, 512, 2048, 30)
    assert len(found.order) > 48_000
    assert len(found.count) < 5000
