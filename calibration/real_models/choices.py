"""Multiple choice by likelihood, as MMLU is scored: five solved questions, then one without answer.

Hendrycks et al., arXiv 2009.03300. The first five questions of a subject are its examples and are
not asked. Answered is the letter of A to D that the model finds most likely next; no text is
generated. Guessing scores a quarter.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...runtime import Session

MMLU = "mmlu"
CHANCE = 0.25
"""What guessing scores."""
SHOTS = 5
BATCH = 16
LETTERS = "ABCD"


def prompts(tokenizer: Any, lines: Sequence[Mapping[str, Any]], each: int) -> dict[str, Any]:
    """Tokens of every prompt, `each` questions of a subject, from short to long; the letters'
    tokens; and the right letters' numbers."""
    subjects: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        subjects.setdefault(line["subject"], []).append(line)
    asked = []
    for subject, found in subjects.items():
        about = subject.replace("_", " ")
        head = f"The following are multiple choice questions (with answers) about {about}.\n\n"
        head += "\n\n".join(f"{_question(q)} {LETTERS[q['answer']]}" for q in found[:SHOTS])
        for line in found[SHOTS : SHOTS + each]:
            ids = tokenizer(f"{head}\n\n{_question(line)}", verbose=False)["input_ids"]
            asked.append((ids, line["answer"]))
    asked.sort(key=lambda pair: len(pair[0]))
    letters = [
        tokenizer(f" {letter}", add_special_tokens=False)["input_ids"][-1] for letter in LETTERS
    ]
    return {
        "rows": [ids for ids, _ in asked],
        "answers": [answer for _, answer in asked],
        "letters": letters,
    }


def room(held: Mapping[str, Any]) -> int:
    """Tokens of the longest prompt."""
    return max(map(len, held["rows"]))


def digits(session: Session, held: Mapping[str, Any]) -> list[int]:
    """1 for each question whose right letter is the most likely of the four, else 0. The session's
    batch is BATCH; a last group is filled up to it."""
    letters = torch.tensor(held["letters"], device=session.device)
    scores: list[int] = []
    for at in range(0, len(held["rows"]), BATCH):
        rows = held["rows"][at : at + BATCH]
        filled = [*rows, *[rows[-1]] * (BATCH - len(rows))]
        chosen = session.prefill(filled)[:, letters].argmax(-1).tolist()
        wanted = held["answers"][at : at + BATCH]
        scores += [int(one == right) for one, right in zip(chosen, wanted, strict=False)]
    return scores


def _question(line: Mapping[str, Any]) -> str:
    options = "\n".join(
        f"{letter}. {choice}" for letter, choice in zip(LETTERS, line["choices"], strict=True)
    )
    return f"{line['question']}\n{options}\nAnswer:"
