"""Whether tasks that were asked for by name fit a context, before a model is loaded.

The tokenizer says so, which takes a second where the weights take minutes. It is asked of models
that lie on this machine as a folder; others are refused once they are loaded.
"""

from collections.abc import Sequence
from pathlib import Path

from ...planner.errors import BadInput
from ...planner.load_model import gguf_path, shipped_folder
from .base import Task

LONG = 2048
"""Tokens that every task fits with any tokenizer: longer contexts are not tried."""


def check_fits(source: str, chosen: Sequence[Task], context: int) -> None:
    """Raise BadInput, naming the task, where one of `chosen` needs more than `context` tokens with
    the tokenizer of `source`."""
    if context >= LONG or gguf_path(source) is not None:
        return
    folder = shipped_folder(source) or Path(source).expanduser()
    if not folder.is_dir():
        return
    from ...runtime.generation.tokenizer import load_tokenizer

    try:
        tokenizer = load_tokenizer(folder, None, False)
    except BadInput:
        return  # loading the model says what is wrong with the folder
    if tokenizer is None:
        return
    for task in chosen:
        task.items(tokenizer, context, 1, 0)
