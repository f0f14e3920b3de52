"""The recall model's tokenizer: whole words of the generated tasks, and characters for the rest.

A name of a task (`amber-lantern`) is two tokens, a variable (`XQKDE`) three, a number of four and
more digits goes in pairs and a shorter one digit by digit, since only short ones are calculated
with. A word carries the space before it, so decoding is putting tokens side by side. A word that
is not in the vocabulary is spelled, and a character that is not becomes bytes: any text has
tokens, and is what it was when decoded.
"""

import re
from string import ascii_uppercase
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from ... import profiles
from ..tasks.words import ADJECTIVES, NOUNS

END = "<|endoftext|>"
PIECES = (
    r"\n\n|\n| ?VAR(?![A-Za-z])| ?[a-z]+-(?=[a-z])| ?[A-Z]?[a-z]+(?:'[a-z]+)?"
    r"| ?[A-Z][A-Z]?(?![a-z])| ?[0-9]{4,}| ?[0-9]| ?[^\sA-Za-z0-9]|\s|."
)
PAIRS = r" ?[0-9]{1,2}"
MULTIPLE = 64
"""The vocabulary is filled up to a multiple of this, as matrix products like it."""

_PHRASES = """
Secret numbers are hidden in the text below. Remember them for the question behind it.
The secret number of numbers is are Question: what is the secret number of given in the text?
Question: what are all the secret numbers of given in the text? The secret numbers of given
Variables are assigned in the text below, some of them from other variables. Follow the
assignments. VAR = . Question: which variables have the value in the end? The variables with the
value are Some entries of the numbered list below come more often than the others. Remember
those. Question: which entries come most often in the list? The most frequent entries are
The steps of a calculation are scattered in the text below, in their order. Step : add subtract.
Question: start with and carry out steps to . What is the total after each step? At the start:
after step :
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, the same each time."""
    words = _words()
    vocabulary = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(
        BPE(vocabulary, [], byte_fallback=True, ignore_merges=True)  # no merges: whole or spelled
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.Split(Regex(PAIRS), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=16384,
    )


def _words() -> list[str]:
    """Every token, in the order of its number."""
    entries: dict[str, Any] = dict.fromkeys([END])
    entries.update(dict.fromkeys(f"<0x{byte:02X}>" for byte in range(256)))
    entries.update(dict.fromkeys(["\n", "\n\n", *map(chr, range(32, 127))]))
    entries.update(dict.fromkeys(f" {chr(code)}" for code in range(33, 127)))
    prose = " ".join(profiles.read(name) for name in ("haystack.md", "calibration_text.md"))
    for piece in re.findall(PIECES, f"{_PHRASES} {prose}"):
        word = piece.strip(" ")
        if word and word.isascii() and not word.isnumeric():
            starts_line = word[0].isupper() or word == "after"
            entries.update(dict.fromkeys([f" {word}", word] if starts_line else [piece]))
    entries.update(dict.fromkeys(f" {word}-" for word in ADJECTIVES))
    entries.update(dict.fromkeys(word for noun in NOUNS for word in (noun, f"{noun}-")))
    pairs = [a + b for letters in (ascii_uppercase, "0123456789") for a in letters for b in letters]
    entries.update(dict.fromkeys(word for pair in pairs for word in (f" {pair}", pair)))
    words = list(entries)
    return words + [f"<|unused{i}|>" for i in range(-len(words) % MULTIPLE)]
