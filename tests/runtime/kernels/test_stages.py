"""Launches that need more shared memory than the card has: tried with fewer stages."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

from triton.runtime.errors import OutOfResources

from kvpareto.runtime.kernels import stages

CONSUMER_BYTES = 101_376


class Card:
    """Holds launches of up to `most` stages."""

    def __init__(self, most: int) -> None:
        self.most, self.tried = most, []

    def launch(self, count: int) -> None:
        self.tried.append(count)
        if count > self.most:
            raise OutOfResources(100_000 * count, 100_000 * self.most, "shared memory")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_fitting", {})


def test_a_launch_that_fits_is_not_tried_again() -> None:
    card = Card(3)
    stages.deepest("a", 3, card.launch)
    assert card.tried == [3]


def test_fewer_stages_are_tried_and_remembered_by_variant() -> None:
    card = Card(1)
    stages.deepest("a", 3, card.launch)
    stages.deepest("a", 3, card.launch)
    stages.deepest("b", 2, card.launch)
    assert card.tried == [3, 2, 1, 1, 2, 1]


def test_what_one_stage_does_not_hold_is_an_error() -> None:
    card = Card(0)
    with pytest.raises(OutOfResources):
        stages.deepest("a", 2, card.launch)
    assert card.tried == [2, 1]


def test_one_stage_of_the_general_kernel_fits_consumer_cards() -> None:
    environment = {name: os.environ[name] for name in os.environ if name != "TRITON_INTERPRET"}
    command = [
        sys.executable,
        "-m",
        "tests.runtime.kernels.shared_bytes",
        "128,64,1",
        "128,64,3",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    of_one_stage, of_three_stages = json.loads(done.stdout)
    assert of_one_stage <= CONSUMER_BYTES < of_three_stages
