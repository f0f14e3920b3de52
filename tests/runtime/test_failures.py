"""Memory that runs out is no crash: on a CPU, in a library, in Python, on a GPU."""

import errno

import numpy as np
import pytest
import torch

from kvpareto.calibration.execution.run_record import failure
from kvpareto.calibration.records.record_file import Record
from kvpareto.planner.errors import BadInput, NothingFits
from kvpareto.runtime.failures import is_out_of_memory
from tests.support.fake_bench import MadeUpModel, campaign


def raised_by(call: object) -> BaseException:
    try:
        call()  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


BEYOND = 2**55  # bytes: no address space holds it
CPU = raised_by(lambda: torch.empty(BEYOND, dtype=torch.uint8))
NUMPY = raised_by(lambda: np.empty(BEYOND, dtype=np.uint8))


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (CPU, True),
        (NUMPY, True),
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (NothingFits("the cache does not fit"), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("out of memory"), False),
        (BadInput("out of memory"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_is_memory_that_ran_out(error: BaseException, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one


@pytest.mark.parametrize("error", [CPU, NUMPY], ids=["torch", "numpy"])
def test_a_calibration_on_a_cpu_notes_it_and_goes_on(error: BaseException) -> None:
    records: list[Record] = []
    fails = {f"w16a16-{cache}+pc1024": error for cache in ("k8v8", "k4v4", "k2v16")}
    campaign(MadeUpModel(fails), records, 5)[0].run()  # three crashes would have ended it
    outcomes = [r.outcome for r in records if r.config in fails]
    assert outcomes == ["out_of_memory"] * 3


def test_a_verification_on_a_cpu_names_the_term() -> None:
    assert failure(CPU, "cache")["outcome"] == "out_of_memory"
    assert failure(CPU, "cache")["term"] == "kv"
    assert failure(RuntimeError("CUDA error: out of memory"), "cache")["term"] == "overhead"
