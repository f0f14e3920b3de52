"""A workload: prompt tokens, output tokens and the number of sequences."""

import math
from typing import Self

from .errors import BadInput
from .light_dataclass import dataclass
from .units import groups_digits, parse_fraction, parse_tokens, split_tokens, without_comma

DEFAULT_CONTEXT = 32768
"""Prompt tokens planned for when nobody says how many, or what the output
leaves of the model's maximum if that is shorter."""

DEFAULT_OUTPUT = 512
"""Generated tokens planned for when nobody says how many, or half of a shorter model's maximum."""

MAX_TOTAL_TOKENS = 2**36  # in all sequences: bytes then stay within 64 bits


@dataclass(frozen=True, slots=True)
class Workload:
    """`context` prompt tokens, then `output` generated tokens, for `batch` sequences at once."""

    context: int
    output: int = DEFAULT_OUTPUT
    batch: int = 1
    full_logits: bool = False
    """Keep logits of every prompt position, as a plain forward pass does; else the last only."""
    lengths: tuple[tuple[int, float], ...] = ()
    """Prompts of several lengths: (tokens, part of the sequences), the longest `context`; none:
    all are of `context`."""

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
        output: str | None,
        batch: str,
        longest: int | None,
        *,
        full_logits: bool = False,
    ) -> Self:
        """From what was typed. Without an output the usual one (default_output), without a context
        DEFAULT_CONTEXT, or what the output leaves of `longest`, the model's maximum, if that is
        shorter. Raises BadInput, also where the output leaves nothing."""
        generated = default_output(longest)
        if output is not None:
            generated = parse_tokens(output, minimum=0, what="output")
        lengths = parse_lengths(context) if context is not None else ()
        usual = DEFAULT_CONTEXT if lengths else default_context(generated, longest)
        longest_asked = max((tokens for tokens, _ in lengths), default=usual)
        return cls(
            longest_asked,
            generated,
            parse_tokens(batch, what="batch"),
            full_logits,
            lengths if len(lengths) > 1 else (),
        )

    @property
    def prompts(self) -> tuple[tuple[int, float], ...]:
        """(prompt tokens, part of the sequences) of every length."""
        return self.lengths or ((self.context, 1.0),)

    @property
    def mean_context(self) -> int:
        """Prompt tokens on average."""
        return round(sum(tokens * part for tokens, part in self.prompts))

    def of_each(self) -> list[int]:
        """Prompt tokens of each of the sequences: every length is there as often as its part
        says, the longest first rounded up."""
        lengths: list[int] = []
        part = 0.0
        for tokens, share in sorted(self.prompts, reverse=True):
            part += share
            lengths += [tokens] * (math.ceil(round(part * self.batch, 6)) - len(lengths))
        return (lengths + [tokens] * self.batch)[: self.batch]

    @property
    def tokens(self) -> int:
        """Tokens the cache must hold for each sequence."""
        return self.context + self.output


def default_output(longest: int | None) -> int:
    """Generated tokens where nobody says how many, for a model made for `longest` tokens."""
    return DEFAULT_OUTPUT if longest is None else min(DEFAULT_OUTPUT, longest // 2)


def default_context(output: int, longest: int | None, most: int = DEFAULT_CONTEXT) -> int:
    """Prompt tokens where nobody says how many: `most`, or what `output` leaves of `longest`.

    Raises BadInput where it leaves nothing.
    """
    if longest is None or output < longest:
        return most if longest is None else min(most, longest - output)
    raise BadInput(
        f"an output of {output:,} tokens leaves none for a prompt: the model was made for "
        f"{longest:,}",
        f"--output {default_output(longest)}; a plan takes any that a --context is named beside",
    )


def lengths_text(workload: Workload) -> str:
    """The prompts' lengths as `--context` takes them: `16384`, `2048,16384:0.9,0.1`."""
    tokens = ",".join(str(one) for one, _ in workload.prompts)
    parts = ",".join(f"{part:.6g}" for _, part in workload.prompts)
    return f"{tokens}:{parts}" if workload.lengths else tokens


def parse_lengths(text: str) -> tuple[tuple[int, float], ...]:
    """`16k`, or a distribution `2k,16k:0.9,0.1` -> (tokens, part of the sequences) of each length.

    Raises BadInput for lengths without parts, for parts that are not as many as lengths, or do not
    sum to 1.
    """
    if ":" not in text:
        words = [text] if groups_digits(text) else text.split(",")
        several = [parse_tokens(word) for word in words]
        if len(several) == 1:
            return ((several[0], 1.0),)
        part = round(1 / len(several), 2)
        parts = [part] * (len(several) - 1)
        shares = ",".join(f"{one:g}" for one in [*parts, round(1 - sum(parts), 2)])
        one = without_comma(text, parse_tokens) or "give one length"
        raise BadInput(
            f"--context {text!r} does not say how many sequences have each length",
            f"{one}, or a part for each: {text.replace(' ', '')}:{shares}",
        )
    left, _, right = text.partition(":")
    lengths = [parse_tokens(one) for one in split_tokens(left)]
    parts = [parse_fraction(one, "part") for one in right.split(",")]
    if len(lengths) != len(parts):
        raise BadInput(
            f"{len(lengths)} lengths and {len(parts)} parts: --context {text!r}",
            "give a part for each length: 2k,16k:0.9,0.1",
        )
    why = "a length is named twice" if len(set(lengths)) != len(lengths) else ""
    why = why or ("a part is 0" if not all(parts) else "")
    if abs(sum(parts) - 1) > 0.001:
        why = why or f"the parts sum to {sum(parts):g}, not to 1"
    if why:
        raise BadInput(
            f"--context {text!r}: {why}",
            "give each length once, with parts that sum to 1: 2k,16k:0.9,0.1",
        )
    return tuple(zip(lengths, parts, strict=True))
