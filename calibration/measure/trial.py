"""What is asked of a configuration that is loaded: the calls that a measurement is made of.

bench.py answers them by the real runtime; tests do by numbers that are made up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..records.record_file import Memory
from .divergence import Divergence


@dataclass(frozen=True)
class Speed:
    """Seconds to the first token, and for each further one."""

    ttft_s: float
    tpot_s: float


class Trial(Protocol):
    """A configuration that is loaded and can be asked. Each call may run out of memory."""

    def divergence(self) -> Divergence: ...

    def window(self) -> int:
        """Tokens of the windows of the divergence."""

    def score(self, task: str, first: int, last: int) -> Sequence[float]:
        """Scores of a task's items first..last - 1, as many as there are."""

    def prompt_tokens(self, task: str) -> int | None:
        """Mean tokens of a task's prompts; None where they fill the context."""

    def speed(self) -> Speed: ...

    def memory(self) -> Memory:
        """Tensors' bytes, and the allocator's as `speed` left them."""
