"""A model in memory with its weights in one format, for several runs of it.

Calibrating and verifying load here, by runtime.loading.load_weights. Loading is the first phase of
a run: it is held to the budget, and its time and high-water mark are kept.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ...planner.models.spec import ModelSpec
from ...runtime.load_weights import load_weights
from .memory_cap import DeviceMemory, memory_of, numbered


@dataclass
class OpenModel:
    """`model` is transformers' own, with its own attention; sessions change and restore it. It is
    None once the context of `open_model` was left."""

    model: Any
    spec: ModelSpec
    tokenizer: Any
    weight_bits: int
    device: torch.device
    random_weights: bool
    seconds: float
    peak: int | None
    """The allocator's high-water mark while loading; None on a CPU."""
    reserved: int | None

    @property
    def memory(self) -> DeviceMemory | None:
        """None on a CPU."""
        return memory_of(self.device) if self.device.type == "cuda" else None


@contextmanager
def open_model(
    source: str,
    weight_bits: int,
    *,
    device: str,
    random_weights: bool = False,
    budget: int | None = None,
    offline: bool = False,
    dtype: str | None = None,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    packed_cache: bool = True,
) -> Iterator[OpenModel]:
    """Load `source`, and let go of it at the end. `random_weights` reads its config only.
    `dtype` is what it is loaded in; by default what `runtime.load` chooses. `tokenizer` is its own,
    where it was read already.

    Raises NothingFits where the weights do not fit the device or the budget; else as
    `load_weights` does.
    """
    where = numbered(device)
    memory = memory_of(where) if where.type == "cuda" else None
    started = time.perf_counter()
    peak = reserved = None
    load = partial(
        load_weights,
        source,
        weight_bits,
        where,
        dtype=getattr(torch, dtype) if dtype is not None else None,
        tokenizer=tokenizer,
        random_weights=random_weights,
        offline=offline,
        trust_remote_code=trust_remote_code,
        packed_cache=packed_cache,
    )
    if memory is None:
        parts = load()
    else:
        memory.settle()
        memory.start_phase()
        with memory.held_to(budget):
            parts = load()
        peak, reserved = memory.marks()
    opened = OpenModel(
        *parts,
        weight_bits=weight_bits,
        device=where,
        random_weights=random_weights,
        seconds=time.perf_counter() - started,
        peak=peak,
        reserved=reserved,
    )
    del parts
    try:
        yield opened
    finally:
        opened.model = None  # whoever still holds `opened` holds no memory
        gc.collect()
        if memory is not None:
            memory.settle()
