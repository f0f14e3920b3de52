"""The next token from its logits: greedy, or sampled with temperature, top-k and top-p."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from ...planner.errors import BadInput


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen. Temperature 0 is greedy, and then nothing else matters."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = all(isinstance(x, int | float) for x in (self.temperature, self.top_p))
        whole = isinstance(self.seed, int) and isinstance(self.top_k, int | None)
        if not (
            numbers
            and whole
            and 0 <= self.temperature < inf
            and 0 < self.top_p <= 1
            and (self.top_k is None or self.top_k >= 1)
            and -(2**63) <= self.seed < 2**64
        ):
            raise BadInput(
                f"temperature {self.temperature!r}, top_k {self.top_k!r}, top_p {self.top_p!r}, "
                f"seed {self.seed!r}",
                "temperature is at least 0, top_k at least 1, top_p above 0 and at most 1, and "
                "the seed a whole number",
            )

    def generator(self, device: torch.device) -> torch.Generator:
        return torch.Generator(device=device).manual_seed(self.seed)


GREEDY = Sampling()
COLDEST = 1e-30
"""What a lower temperature is taken for: logits divided by less are no 32-bit floats."""


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Logits [B, V] -> tokens int64 [B]."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scores = logits.float() / max(sampling.temperature, COLDEST)
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        least = scores.topk(sampling.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    probabilities = scores.softmax(-1)
    if sampling.top_p < 1:
        ranked, order = probabilities.sort(descending=True)
        # kept: tokens before which less than top_p has gathered, so always the first
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= sampling.top_p, 0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ranked)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
