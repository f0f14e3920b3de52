"""A model in memory with its weights in one format, for several runs of it.

Loading is the first phase of a run: it is held to the budget, and its time and high-water mark
are kept. On a GPU, a 16-bit checkpoint that is to be rounded to 8 or 4 bits is loaded and rounded
in the host's memory, so that the 16-bit weights never lie on the device.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ...planner.formats.configuration import Configuration
from ...planner.load_model import load_config
from ...planner.models.quantization.quantization_config import find_section
from ...planner.models.spec import ModelSpec
from ...runtime import load
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
) -> Iterator[OpenModel]:
    """Load `source`, and let go of it at the end. `random_weights` reads its config only.
    `dtype` is what it is loaded in; by default what `runtime.load` chooses.

    Raises NothingFits where the weights do not fit the device or the budget; else as
    `runtime.load` does.
    """
    where = numbered(device)
    memory = memory_of(where) if where.type == "cuda" else None
    started = time.perf_counter()
    peak = reserved = None
    if memory is None:
        parts = _load(source, weight_bits, where, random_weights, offline, dtype)
    else:
        memory.settle()
        memory.start_phase()
        with memory.held_to(budget):
            parts = _load(source, weight_bits, where, random_weights, offline, dtype)
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


def _load(
    source: str, bits: int, device: torch.device, random_weights: bool, offline: bool,
    dtype: str | None,
) -> tuple[Any, ModelSpec, Any]:  # fmt: skip
    """Model, description, tokenizer."""
    wanted = getattr(torch, dtype) if dtype is not None else None
    rounded = bits < 16 and not random_weights
    on_host = device.type == "cuda" and rounded and not _is_packed(source, offline)
    with load(
        source,
        Configuration(weight_bits=bits),
        context=8,
        output=1,
        device="cpu" if on_host else device,
        dtype=wanted or (torch.bfloat16 if on_host else None),
        random_weights=random_weights,
        fused=False,
        graphs=False,
        offline=offline,
    ) as session:
        model: Any = session.model
        parts = session.spec, session.tokenizer
    if on_host:
        from ...runtime.weights.fused_projections import move

        move(model, device)
    return model, *parts


def _is_packed(source: str, offline: bool) -> bool:
    """Whether the checkpoint stores packed weights, which load straight to the device."""
    return find_section(load_config(source, offline=offline).config) is not None
