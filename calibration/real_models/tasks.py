"""The generated tasks for pretrained models, and their scores as digits, one an item.

Needles and variables are fed their ideal answers as the grid does (grid/score.py): what greedy
decoding would write up to the first error. Common words may be named in any order, so those
are generated.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...runtime import Session
from ..grid.score import score
from ..grid.variants import Variant, parts_of
from ..grid.worker import read_batches
from ..tasks.base import Item
from ..tasks.common_words import CommonWords
from ..tasks.needle import Needle
from ..tasks.variable_tracking import Variables

TEXTS = 32
BATCH = 8
"""Texts that are read together."""
COMMON = "common-words"
ABLE = 0.3
"""A task is kept where the unquantized model scores this: a retention needs something to lose."""
GROUPS = (
    (
        Variant("needle-16", "retrieval", Needle("needle-multikey", keys=16), 8),
        Variant("needle-4", "retrieval", Needle("needle-multikey", keys=4), 4),
        Variant("needle-2", "retrieval", Needle("needle-multikey", keys=2), 2),
    ),
    (
        Variant("variables-4x4", "reasoning", Variables("variables", 4, 4), 4),
        Variant("variables-8x1", "reasoning", Variables("variables", 8, 1), 8),
        Variant("variables-2x1", "reasoning", Variables("variables", 2, 1), 2),
    ),
)
VARIANTS: Mapping[str, Variant] = {v.name: v for group in GROUPS for v in group}


def chosen(scores: Mapping[str, float]) -> list[str]:
    """Of each group the first variant that the unquantized model is able of."""
    able = []
    for names in (*([v.name for v in group] for group in GROUPS), [COMMON]):
        able += [name for name in names if scores.get(name, 0.0) >= ABLE][:1]
    return able


def available(folder: Path, context: int) -> list[str]:
    """Tasks that were prepared for a context."""
    names = [n for n in VARIANTS if (folder / f"{n}-{context}.safetensors").exists()]
    return names + [COMMON] * (folder / f"{COMMON}-{context}.json").exists()


class TaskExam:
    """One task at one context, on a device: how much room it takes, and what a session scores."""

    def __init__(self, folder: Path, name: str, context: int, device: str) -> None:
        self.name = name
        self._items: list[Item] = []
        if name == COMMON:
            held = json.loads((folder / f"{name}-{context}.json").read_text())
            self._items = [Item("", tuple(ids), tuple(a), n) for ids, a, n in held]
            self.room = max(len(i.prompt_ids) + i.max_new_tokens for i in self._items)
            self.parts = len(self._items[0].answers)
            return
        path = folder / f"{name}-{context}.safetensors"
        self._batches = read_batches(path, device)
        self.room = max(batch.room for batch in self._batches)
        self.parts = parts_of(VARIANTS[name])

    def digits(self, session: Session) -> list[int]:
        """Right parts of every item; the session's batch is BATCH."""
        if not self._items:
            return score(session, self._batches)
        task, scores = CommonWords(COMMON), []
        for at in range(0, len(self._items), BATCH):
            group = self._items[at : at + BATCH]
            prompts = [list(item.prompt_ids) for item in group]
            texts = generated(session, prompts, max(item.max_new_tokens for item in group))
            rights = [task.score(item, text) for item, text in zip(group, texts, strict=True)]
            scores += [round(self.parts * right) for right in rights]
        return scores


def generated(session: Session, prompts: Sequence[Sequence[int]], tokens: int) -> list[str]:
    """Greedy answers to prompts; a last group is filled up to the session's batch."""
    batch = session.cache.clock.starts.shape[0]
    filled: Any = [*prompts, *[prompts[-1]] * (batch - len(prompts))]
    texts = session.generate(filled, tokens).text
    assert texts is not None  # sessions of the campaign have tokenizers
    return texts[: len(prompts)]
