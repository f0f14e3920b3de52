"""How right a model in training is, task by task, between two lines of its log.

Sums stay on the device until a line is written: reading them back waits for the GPU.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from .batches import TrainingBatch
from .samples import KINDS


class TrainingScores:
    """What was right since the last line of the log, by task and length."""

    def __init__(self) -> None:
        self.sums: defaultdict[int, Any] = defaultdict(int)
        self.nats: list[Tensor] = []

    def add(self, batch: TrainingBatch, losses: Tensor) -> None:
        asked = torch.stack([batch.kinds == kind for kind in range(len(KINDS))]).float()
        sums = torch.stack([asked @ losses[1], asked @ losses[0], asked.sum(1)], 1)
        self.sums[batch.ids.shape[1]] += sums
        other = (batch.kinds < 0).float()
        self.nats.append(torch.stack([(losses[0] * other).sum(), other.sum()]))

    def close(self) -> dict[str, Any]:
        """{task: {length: [accuracy, nats]}} and the nats of other text; starts anew."""
        told: dict[str, Any] = defaultdict(dict)
        for length, sums in sorted(self.sums.items()):
            for name, (right, nats, count) in zip(KINDS, sums.tolist(), strict=True):
                if count:
                    told[name][length] = [round(right / count, 4), round(nats / count, 4)]
        if self.nats:
            nats, count = torch.stack(self.nats).sum(0).tolist()
            told["text_nats"] = round(nats / max(1.0, count), 4)
        self.sums.clear()
        self.nats.clear()
        return dict(told)
