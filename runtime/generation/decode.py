"""Token by token: choose, yield, append, on a GPU with the host one step behind the device.

There the next pass is launched before the chosen token is read back, so the device never waits for
Python; the price is one pass in vain after a stop token. On a CPU nothing runs beside Python: a
token is handed on before the next pass, so that nobody waits, or is timed, for a pass more.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..failures import are_finite, not_finite
from ..forward import Forward
from .sampling import Sampling, choose

_NONE = -1
"""In place of a token: the scores that it was to be chosen by are no numbers."""


def decode(
    forward: Forward, logits: Tensor, count: int, sampling: Sampling, stops: frozenset[int]
) -> Iterator[list[int]]:
    """Yield up to `count` tokens for each sequence, a list [B] a step.

    `logits`, [B, V], are the prompt's last. A sequence that has met a stop token goes on
    repeating that token; decoding ends when every sequence has stopped. Raises NotFinite where
    no token can be chosen.
    """
    generator = sampling.generator(logits.device)
    reader = _Reader(logits.shape[0], logits.device)
    stopped: list[int | None] = [None] * logits.shape[0]
    ahead = logits.device.type == "cuda"
    for step in range(count):
        finite = are_finite(logits)
        if sampling.temperature > 0:  # drawing from NaN is an assertion on the device
            logits = logits.where(finite[:, None], 0)
        chosen = choose(logits, sampling, generator)
        reader.send(chosen.where(finite, _NONE))
        if ahead and step + 1 < count:
            logits = forward(chosen[:, None])
        tokens = reader.receive()
        if _NONE in tokens:
            raise not_finite(f"after {step} generated tokens")
        for row, token in enumerate(tokens):
            if stopped[row] is None and token in stops:
                stopped[row] = token
        yield [token if stop is None else stop for token, stop in zip(tokens, stopped, strict=True)]
        if all(stop is not None for stop in stopped):
            return
        if not ahead and step + 1 < count:
            logits = forward(chosen[:, None])


class _Reader:
    """Copies chosen tokens to the host without making the launches behind them wait."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.host = torch.empty(batch, dtype=torch.long, pin_memory=self.cuda)
        self.copied = torch.cuda.Event() if self.cuda else None

    def send(self, tokens: Tensor) -> None:
        self.host.copy_(tokens, non_blocking=True)
        if self.copied is not None:
            self.copied.record()

    def receive(self) -> list[int]:
        if self.copied is not None:
            self.copied.synchronize()
        return self.host.tolist()
