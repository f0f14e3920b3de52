"""GSM8K: grade-school problems after eight solved examples, through the chat template.

Cobbe et al., arXiv 2110.14168. The first eight problems of the file are the examples and are
not asked. Scored by exact match of the number behind the last "####", or of the last number
where the answer has no such mark.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...runtime import Session
from .tasks import generated

SHOTS = 8
QUESTIONS = 256
NEW_TOKENS = 320
BATCH = 64
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_NOTE = re.compile(r"<<.*?>>")


def prompts(tokenizer: Any, lines: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Tokens that all prompts begin with, what follows for each question, and right answers."""
    shots: list[dict[str, str]] = []
    for line in lines[:SHOTS]:
        shots.append({"role": "user", "content": line["question"]})
        shots.append({"role": "assistant", "content": _NOTE.sub("", line["answer"])})
    asked = lines[SHOTS : SHOTS + QUESTIONS]
    rows = []
    for line in asked:
        messages = [*shots, {"role": "user", "content": line["question"]}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        rows.append(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    shared = next(i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1)
    return {
        "shared": rows[0][:shared],
        "rows": [row[shared:] for row in rows],
        "answers": [number(line["answer"]) for line in asked],
    }


def number(text: str) -> str | None:
    """The final number of a solution, without thousands' commas or a trailing .0."""
    tail = text.rsplit("####", 1)[1] if "####" in text else text
    numbers = _NUMBER.findall(tail)
    if not numbers:
        return None
    plain = (numbers[0] if "####" in text else numbers[-1]).replace(",", "")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def room(held: Mapping[str, Any]) -> int:
    """Tokens that the longest prompt with its answer takes."""
    return len(held["shared"]) + max(map(len, held["rows"])) + NEW_TOKENS


def digits(session: Session, held: Mapping[str, Any]) -> list[int]:
    """1 for each question that is answered with the right number, else 0."""
    scores = []
    whole = [held["shared"] + row for row in held["rows"]]
    for at in range(0, len(whole), BATCH):
        texts = generated(session, whole[at : at + BATCH], NEW_TOKENS)
        wanted = held["answers"][at : at + BATCH]
        scores += [int(number(text) == right) for text, right in zip(texts, wanted, strict=True)]
    return scores
