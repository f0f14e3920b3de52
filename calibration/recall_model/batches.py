"""Batches of training samples, made in worker processes as the curriculum stands.

Every batch has the same number of tokens, cut into sequences of one length, and the same number of
positions that the model is asked at: answers first, then any others, which count little.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .curriculum import CurriculumStage, draw_facts, draw_kind, draw_length
from .samples import KINDS
from .words import Words

ASKED = 4  # a batch of N tokens is asked at N / ASKED positions
PROSE_WEIGHT = 0.05
SHORTER = 64
"""Tokens that a text may lack of its sequence. Of texts that all end where their sequences do, the
place where an answer begins tells how long it is: several values were counted so, and wrongly
wherever a prompt of that length had its answer still to come."""


@dataclass
class TrainingBatch:
    """`ids` int64 [B, T]; of the positions asked, [M]: `places` in the flattened batch, `labels`,
    `weights` float32, `kinds` (place in KINDS of an answer's task, -1 for other text)."""

    ids: Tensor
    places: Tensor
    labels: Tensor
    weights: Tensor
    kinds: Tensor

    def pin_memory(self) -> "TrainingBatch":
        return TrainingBatch(*(part.pin_memory() for part in vars(self).values()))

    def to(self, device: torch.device) -> "TrainingBatch":
        return TrainingBatch(*(part.to(device, non_blocking=True) for part in vars(self).values()))


def draw_batch(words: Words, rng: Generator, stage: CurriculumStage, tokens: int) -> TrainingBatch:
    """A batch of `tokens` tokens at this stage of the curriculum."""
    length = draw_length(rng, stage)
    rows = tokens // length
    ids = np.full((rows, length + 1), words.end, dtype=np.int64)
    weights = np.zeros((rows, length), dtype=np.float32)
    kinds = np.full((rows, length), -1, dtype=np.int64)
    labels = np.full((rows, length), words.end, dtype=np.int64)
    for row in range(rows):
        kind = draw_kind(rng, stage)
        size = length - int(rng.integers(min(SHORTER, length // 8)))
        sample = KINDS[kind](words, rng, size, draw_facts(rng, stage, kind))
        count = min(len(sample.ids), length + 1)
        ids[row, :count] = sample.ids[:count]
        labels[row] = ids[row, 1:]
        answers = np.flatnonzero(sample.answer[:count]) - 1
        answers = np.concatenate([answers, [end for end in sample.ends if end < length]])
        answers = answers.astype(np.int64)
        weights[row, : count - 1] = PROSE_WEIGHT
        # a text with few answers counts for more than its share of them
        weights[row, answers] = np.clip(np.sqrt(64 / max(1, len(answers))), 0.25, 4.0)
        labels[row, [end for end in sample.ends if end < length]] = words.end
        kinds[row, answers] = list(KINDS).index(kind)
    order = rng.random(weights.shape) + (kinds >= 0)
    places = np.argpartition(order.ravel(), -(tokens // ASKED))[-(tokens // ASKED) :]
    return TrainingBatch(
        torch.from_numpy(ids[:, :-1].copy()),
        torch.from_numpy(places),
        torch.from_numpy(labels.ravel()[places]),
        torch.from_numpy(weights.ravel()[places]),
        torch.from_numpy(kinds.ravel()[places]),
    )


class _Stream(IterableDataset):
    def __init__(self, words: Words, shared: Tensor, tokens: int, seed: int) -> None:
        self.words, self.shared, self.tokens, self.seed = words, shared, tokens, seed

    def __iter__(self) -> Iterator[TrainingBatch]:
        info = get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        while True:
            yield draw_batch(self.words, rng, CurriculumStage(*self.shared.tolist()), self.tokens)


def stream(
    words: Words, shared: Tensor, tokens: int, seed: int, workers: int, pinned: bool
) -> Iterator[TrainingBatch]:
    """Batches without end. `shared` float64 [4] holds the stage, and may be changed meanwhile."""
    loader = DataLoader(
        _Stream(words, shared, tokens, seed),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=3 if workers else None,
        pin_memory=pinned,
        multiprocessing_context="fork" if workers else None,
    )
    return iter(loader)
