"""What a grid file says: retention of each run, overall and by kind, with its sampling error.

A line is a run: {"model", "config", "context", "seconds", "seed", "tasks": {variant: {"score",
"items"}}}, or an "error" in the place of tasks; a line without a configuration is the environment
that the lines behind it were measured in. `items` has one hexadecimal digit an item: the answer
parts that are right before the first that is wrong, in the order of score.py.
"""

from collections.abc import Sequence


def encode_items(right: Sequence[int]) -> str:
    """Right parts of each item, one digit each."""
    return "".join(f"{parts:x}" for parts in right)


def decode_items(text: str) -> list[int]:
    return [int(digit, 16) for digit in text]
