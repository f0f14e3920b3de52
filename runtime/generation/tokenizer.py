"""A checkpoint's tokenizer, and that it belongs to the model.

A tokenizer of another model gives ids that the embedding has no rows for, or rows of other words:
the first is refused here, before anything is measured.
"""

from pathlib import Path

from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer

from ...planner.errors import BadInput
from ..failures import reading

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def load_tokenizer(folder: Path, rows: int | None, trust_remote_code: bool) -> Tokenizer | None:
    """The folder's tokenizer, None where there is none. `rows` are the embedding's, if known.

    Raises BadInput for one that cannot be read, brings code that is not trusted, or numbers words
    beyond the embedding. Added tokens may lie beyond it (Gemma 3's image token does): a prompt
    with one of them is refused when it comes.
    """
    if not any((folder / name).is_file() for name in _FILES):
        return None
    again = "download the tokenizer's files again"
    with reading(f"the tokenizer of {folder.name}", again):
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code
        )
        tokenizer.get_vocab()
    if rows is not None:
        check_words(tokenizer, rows, folder.name)
    return tokenizer


def check_words(tokenizer: Tokenizer, rows: int, name: str) -> None:
    """Raise BadInput for a tokenizer that numbers words beyond the embedding's `rows`."""
    added = set(tokenizer.get_added_vocab().values())
    numbers = (number for number in tokenizer.get_vocab().values() if number not in added)
    largest = max(numbers, default=-1)
    if largest >= rows:
        raise BadInput(
            f"the tokenizer of {name} numbers words up to {largest}, the model knows {rows}",
            "tokenizer and model do not belong together",
        )
