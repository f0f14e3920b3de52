"""The question that tests of whole plans ask and change."""

import pytest

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.load_model import load_model
from kvpareto.planner.search.recommend import Request
from kvpareto.planner.workload import Workload


@pytest.fixture(scope="session")
def qwen() -> Request:
    spec = load_model("Qwen/Qwen3-8B", offline=True)
    return Request(spec, Workload(32_768), KVPARETO, 12 * 10**9, find_gpu("4090"))
