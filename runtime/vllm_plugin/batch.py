"""How a batch that holds prompts is cut, so that the staged tokens of each part fit the workspace.

vLLM schedules tokens, not contexts: a step may hold many prompts, each with a long context before
its new tokens. Requests are taken in order; each part is one launch of the library's attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PromptPart:
    """Requests [first, last) of a batch, whose new tokens are [first_token, last_token)."""

    first: int
    last: int
    first_token: int
    last_token: int
    longest_query: int
    longest: int  # context and new tokens


def cut_prompts(
    query_starts: Sequence[int], lengths: Sequence[int], first: int, room: int
) -> tuple[PromptPart, ...]:
    """Parts of requests `first` on, with at most `room` tokens of context each.

    `query_starts` has one entry more than `lengths`. A request longer than `room` is a part alone.
    """
    parts = []
    begin, held = first, 0
    for request in range(first, len(lengths)):
        if request > begin and held + lengths[request] > room:
            parts.append(_part(query_starts, lengths, begin, request))
            begin, held = request, 0
        held += lengths[request]
    if begin < len(lengths):
        parts.append(_part(query_starts, lengths, begin, len(lengths)))
    return tuple(parts)


def _part(query_starts: Sequence[int], lengths: Sequence[int], first: int, last: int) -> PromptPart:
    new = [query_starts[i + 1] - query_starts[i] for i in range(first, last)]
    return PromptPart(
        first, last, query_starts[first], query_starts[last], max(new), max(lengths[first:last])
    )
