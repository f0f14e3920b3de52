"""A small model that is open on the CPU, and what tests run on it."""

from collections.abc import Iterator

import pytest

from kvpareto.calibration.execution.loaded_model import OpenModel, open_model
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.workload import Workload
from tests.support import data_files

STORIES = str(data_files.STORIES)
SPEC = load_model(STORIES)
CONFIG = Configuration.parse("w16a16-k4v4+pc16")
WORK = Workload(64, 6)


@pytest.fixture(scope="module")
def opened() -> Iterator[OpenModel]:
    with open_model(STORIES, 16, device="cpu") as found:
        yield found
