"""The most filler that still fits: a search that needs few tokenizations of a long text.

Tokens grow almost linearly with words, so interpolation lands next to the answer at once, where
bisection would tokenize a hundred thousand tokens seventeen times.
"""

from collections.abc import Callable

from ...planner.errors import BadInput

INTERPOLATIONS = 12  # then bisection, should the count be far from linear
MOST_UNITS_A_TOKEN = 64
"""Of filler: a word is a token or more; a list's entry is several."""


def largest(count: Callable[[int], int], limit: int) -> int:
    """The n >= 0 with count(n) <= limit < count(n + 1), for a count that grows without bound.

    count(0) must be within the limit. Where the count is not monotone n still satisfies both.
    Raises BadInput where more and more units are hardly any tokens, as of a tokenizer that makes
    none of any text: no n would be too many.
    """
    low, below = 0, count(0)
    high, above = 0, limit  # no n is known to be too many while high is 0
    rate = 1.0  # tokens a unit, to begin with
    asked = 0
    while below < limit or not high:
        if high - low == 1:
            break
        asked += 1
        if not high:
            n = low + max(1, int((limit - below) / rate * 1.02) + 1)
        elif asked <= INTERPOLATIONS:
            n = low + round((limit - below) * (high - low) / max(1, above - below))
            n = min(max(n, low + 1), high - 1)
        else:
            n = (low + high) // 2
        tokens = count(n)
        if tokens <= limit and n > MOST_UNITS_A_TOKEN * max(tokens, 1):
            raise BadInput(
                f"this tokenizer makes {tokens} tokens of {n:,} words",
                "its tokenizer.json is damaged, or not this model's",
            )
        if tokens <= limit:
            rate = max((tokens - below) / (n - low), rate / 2)
            low, below = n, tokens
        else:
            high, above = n, tokens
    return low
