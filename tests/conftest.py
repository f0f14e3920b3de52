"""What must be set before anything is imported: Triton's interpreter where there is no GPU, a home
without the calibrations of whoever runs the tests, and one thread a process: the suite runs in as
many processes as there are cores, and waiting threads of BLAS would take the cores from each other.
Which files are tests of the CPU's arithmetic (marker `cpu`) is said here, in one place.
"""

import os
import tempfile
from pathlib import Path

import pytest

CPU = (
    *("calibrate_tasks", "divergence", "harness", "probe", "recall_model"),
    *("runtime_forced", "runtime_models", "runtime_quantize", "runtime_reference"),
    *("runtime_session", "runtime_text", "weights_load", "weights_models", "weights_quantize"),
)
"""Files that run models, or their parts, with torch on the CPU."""

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ["KVPARETO_TRACEBACK"] = "1"  # a fault of the program is to be seen
os.environ["KVPARETO_HOME"] = tempfile.mkdtemp(prefix="kvpareto-tests-")

if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem.removeprefix("test_") in CPU:
            item.add_marker(pytest.mark.cpu)
