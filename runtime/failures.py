"""What goes wrong below the runtime, in its own words: memory, numbers, and files of others.

torch says three different things when memory runs out, and only one of them as an
OutOfMemoryError; transformers, safetensors and tokenizers meet a damaged file with whatever their
code happens to raise. Both are told apart here, once, for everything that loads or runs a model.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..planner.errors import BadInput, KVParetoError, NothingFits, one_line
from ..planner.libraries import import_failure

_NO_MEMORY = (
    "can't allocate memory",  # torch's CPU allocator
    "cannot allocate memory",  # the system's ENOMEM, a mapped file's among them
    "not enough memory",
    "bad alloc",  # underscores are read as spaces
    "bad allocation",
)
_RUNTIME_NO_MEMORY = ("out of memory", "alloc failed", "memoryallocation", "defaultcpuallocator")
"""Of RuntimeErrors alone: torch's, CUDA's and its libraries'."""


class NotFinite(KVParetoError):
    """A model whose next-token scores are NaN or infinite: nothing that it says means anything
    (exit code 1)."""

    exit_code = 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: of torch's allocators, of a library or driver, or of the host.

    torch's CPU allocator, libraries and the driver raise RuntimeErrors, a mapped file an error of
    its library's, Python and numpy a MemoryError. NothingFits says so too.
    """
    if isinstance(error, NothingFits | torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, KVParetoError):
        return False
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    text = str(error).lower().replace("_", " ")
    signs = (*_NO_MEMORY, *_RUNTIME_NO_MEMORY) if isinstance(error, RuntimeError) else _NO_MEMORY
    return any(sign in text for sign in signs)


@contextmanager
def reading(what: str, hint: str) -> Iterator[None]:
    """Whatever a library raises over files that somebody gave, as one BadInput that names `what`.

    Our own errors pass, and so does memory that ran out.
    """
    try:
        yield
    except KVParetoError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        broken = import_failure(error)  # transformers imports a model's code when it is asked for
        if broken is not None:
            raise broken from error
        if "trust_remote_code" in str(error):
            raise BadInput(
                f"{what} brings code of its own, which is not run",
                "--trust-remote-code runs it (trust_remote_code=True in Python): read it first",
            ) from error
        said = one_line(str(error), 160)
        raise BadInput(
            f"{what} cannot be read: {type(error).__name__}{f': {said}' if said else ''}", hint
        ) from error


def are_finite(logits: Tensor) -> Tensor:
    """For each row of [..., V] logits whether a distribution can be made of it: bool [...].

    -inf alone is legal (a token that cannot be); NaN, +inf and nothing but -inf are not. The
    maximum of a row shows all three.
    """
    return logits.amax(-1).isfinite()


def check_finite(logits: Tensor, where: str) -> None:
    """Raise NotFinite where a row of [..., V] logits gives no distribution."""
    if not bool(are_finite(logits).all()):
        raise not_finite(where)


def not_finite(where: str) -> NotFinite:
    return NotFinite(
        f"the model's next-token scores are not finite (NaN or infinity) {where}",
        "a weight may be damaged, or the number format too narrow: download the checkpoint again",
    )
