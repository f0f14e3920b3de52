"""Whether an error says that memory ran out, on whatever device and in whatever library.

torch raises OutOfMemoryError for its CUDA allocator alone. Its CPU allocator raises a RuntimeError,
libraries and the driver raise others, numpy and Python MemoryError, mapping a file OSError. For a
calibration they are one thing: the configuration does not fit, and is not tried again.
"""

import errno

import torch

from ..planner.errors import NothingFits

_WORDS = ("out of memory", "alloc failed", "memoryallocation", "defaultcpuallocator")
"""Of the messages of RuntimeErrors, in lower case and with spaces for underscores."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: of torch's allocators, of a library or driver, or of the host."""
    if isinstance(error, NothingFits | torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower().replace("_", " ")
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDS)
