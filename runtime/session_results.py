"""What a session answers: generated tokens, and the memory that it takes."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes. `allocated` and `peak` are torch's allocator on the model's GPU, None on a CPU."""

    weights: int
    kv: int
    allocated: int | None
    peak: int | None


@dataclass(frozen=True, slots=True)
class Generation:
    """Generated tokens of each sequence, stop token included, and their text if there is a
    tokenizer (without special tokens)."""

    tokens: list[list[int]]
    text: list[str] | None


def held_bytes(model: torch.nn.Module) -> int:
    """Bytes of a model's parameters and buffers, what is shared counted once."""
    held = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
    return sum(held.values())
