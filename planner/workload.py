"""A workload: prompt tokens, output tokens and the number of sequences."""

from typing import Self

from .errors import BadInput
from .light_dataclass import dataclass
from .units import parse_tokens

DEFAULT_CONTEXT = 32768
"""Prompt tokens planned for when nobody says how many, or what the output
leaves of the model's maximum if that is shorter."""

DEFAULT_OUTPUT = 512

MAX_TOTAL_TOKENS = 2**36  # in all sequences: bytes then stay within 64 bits


@dataclass(frozen=True, slots=True)
class Workload:
    """`context` prompt tokens, then `output` generated tokens, for `batch` sequences at once."""

    context: int
    output: int = DEFAULT_OUTPUT
    batch: int = 1
    full_logits: bool = False
    """Keep logits of every prompt position, as a plain forward pass does; else the last only."""

    def __post_init__(self) -> None:
        if self.context < 1 or self.output < 0 or self.batch < 1:
            raise BadInput(
                f"no workload: context {self.context}, output {self.output}, batch {self.batch}",
                "context and batch are at least 1, output at least 0",
            )
        if max(self.context, self.output, self.batch) > 2**31:
            raise BadInput("more than 2^31 tokens or sequences", "ask for a shorter context")
        if self.batch * self.tokens > MAX_TOTAL_TOKENS:
            raise BadInput(
                f"{self.batch} sequences of {self.tokens:,} tokens are more than 2^36 tokens",
                "ask for fewer sequences or a shorter context",
            )

    @classmethod
    def parse(
        cls,
        context: str | None,
        output: str,
        batch: str,
        longest: int | None,
        *,
        full_logits: bool = False,
    ) -> Self:
        """From what was typed. Without a context DEFAULT_CONTEXT, or what the output leaves of
        `longest`, the model's maximum, if that is shorter. Raises BadInput."""
        generated = parse_tokens(output, minimum=0, what="output")
        left = max(1, (longest or MAX_TOTAL_TOKENS) - generated)
        return cls(
            parse_tokens(context) if context is not None else min(DEFAULT_CONTEXT, left),
            generated,
            parse_tokens(batch, what="batch"),
            full_logits,
        )

    @property
    def tokens(self) -> int:
        """Tokens the cache must hold for each sequence."""
        return self.context + self.output
