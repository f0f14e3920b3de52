"""What must be set before anything is imported: Triton's interpreter where there is no GPU, a home
without the calibrations of whoever runs the tests, nothing of their terminal, and one thread a
process: the suite runs in as many processes as there are cores, and waiting threads of BLAS would
take the cores from each other.
Which files are tests of the CPU's arithmetic (marker `cpu`) is said here, in one place.

What is there when a file's tests begin (libraries, tests, models that are kept) is put beyond the
garbage collector: the program collects when it gives up a model, and would walk through all of it.
"""

import gc
import os
import tempfile
from pathlib import Path

import pytest

CPU = (
    "calibration/measure/test_calibrate_tasks",
    "calibration/measure/test_divergence",
    "calibration/measure/test_layer_probe",
    "calibration/measure/test_read_attention",
    "calibration/recall_model/test_recall_model",
    "calibration/tasks/test_lm_eval",
    "runtime/test_forced",
    "runtime/test_models",
    "runtime/cache",
    "runtime/test_reference",
    "runtime/test_session",
    "runtime/test_text",
    "runtime/weights/test_load",
    "runtime/weights/test_models",
    "runtime/weights/test_quantize",
)
"""Files that run models, or their parts, with torch on the CPU."""

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ["KVPARETO_TRACEBACK"] = "1"  # a fault of the program is to be seen
for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
    os.environ.pop(name, None)
os.environ["KVPARETO_HOME"] = tempfile.mkdtemp(prefix="kvpareto-tests-")

if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(Path(__file__).parent).with_suffix("").as_posix() in CPU:
            item.add_marker(pytest.mark.cpu)


_AT_HAND: set[Path] = set()
"""The test file whose tests run."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.path not in _AT_HAND:
        _AT_HAND.clear()
        _AT_HAND.add(item.path)
        gc.collect()
        gc.freeze()


@pytest.fixture
def few_published_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile is fitted beside every eighth published row: for tests that ask what becomes of the
    model's own rows, not what a fit is worth. A fit beside all of them takes seconds."""
    from kvpareto.calibration.fit import profile

    whole = profile.read_rows
    monkeypatch.setattr(profile, "read_rows", lambda path: whole(path)[::8])
