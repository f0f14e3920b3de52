"""How close each engine comes to a GPU's datasheet: coefficients, as this package brings them.

interval.py says how sure they are, and what was fitted on this machine instead.
"""

import json
from dataclasses import fields
from functools import lru_cache
from typing import Any

from ...profiles import read
from ..engine import Engine
from ..light_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Fractions of datasheet rates, bytes moved, seconds of the host: docs/latency_fit.md."""

    matmul: float
    """Of the dense 16-bit rate, in matrix products of long chunks."""
    matmul_eight: float
    """Of the dense 8-bit rate, where a prompt's rows are in 8 bits on Hopper, rounding included."""
    matmul_rows: float
    """Rows of a matrix product that reach half of that."""
    matmul_inputs: float
    """Inputs in whose time is done what narrow models' chunks take longer, by whole runs."""
    grouped: float
    """Of `matmul`, in the products of 16-bit experts, which are many and small in one kernel."""
    grouped_packed: float
    """The same of packed experts, which the kernel unpacks."""
    routed_moves: float
    """What the bytes of 16-bit experts beside their products take, in that of `stream`."""
    stream: float
    """Of the bandwidth, in kernels that only move bytes."""
    attention: float
    """Of the dense 16-bit rate, causal attention over a 16-bit cache."""
    attention_masked: float
    """The same with an explicit mask (transformers in chunks)."""
    attention_packed: float
    """The same over a chunk's past, staged in 16 bits: no mask, another kernel."""
    softmax: float
    """Operations that the softmax of one score takes in them, in those of products."""
    attention_eight: float
    """Of the dense 8-bit rate, a chunk's attention in 8 bits on Hopper; 0 where there is none."""
    attention_tiled: float
    """The same of the general kernel, which takes what cannot be staged, over a 16-bit cache."""
    tiled_packed: float
    """Of that, over a packed cache: every block of queries unpacks every tile again."""
    fill_rows: float
    """Query rows x heads below which attention leaves a 989 TFLOP/s card partly idle."""
    weights_16: float
    weights_8: float
    weights_4: float
    """Of `stream`, when a decode step multiplies with weights of that many bits."""
    sweep: float
    """The same of 4 bits for 3 to 16 rows, arithmetic aside (sweep.cu)."""
    tiles: float
    """The same of 17 to 64 rows (tile.cu, ring.cu)."""
    streamed: float
    """The same of 4 bits for 1 to 4 rows (stream.cu)."""
    row_input: float
    """Seconds of an input of a row there, which every block makes whole."""
    wide: float
    """The same of 17 to 64 rows on Hopper, arithmetic aside (wide.cu)."""
    tiles_8: float
    """The same of 8 bits for 3 to 32 rows (Triton)."""
    few_rows: float
    """Of the dense 16-bit rate, the arithmetic of 3 to 64 rows times packed weights."""
    parts_rows: float
    """The same of 5 to 16 rows that are ready in whole numbers, on a card that is full
    (parts.cu)."""
    parts_unpacked: float
    """Rows in whose time it unpacks a tile."""
    wide_rows: float
    """The same of wide.cu, on a card that is full."""
    experts_16: float
    """The same of experts in 16 bits, each of which has few rows of a tile to do."""
    packed_8: float
    packed_4: float
    packed_2: float
    """Of `stream`, when a decode step reads a cache of that many bits."""
    score: float
    """Seconds of a score of such a step: many query heads to a KV head take longer than its keys
    and values do."""
    conflicts: float
    """Of the rate of merges, what runs reached before these read without bank conflicts."""
    packed_channels: float
    """Of that, keys with a pair for each channel."""
    dequantize_bytes: float
    """Bytes moved for each packed weight besides reading it, in a long chunk."""
    cache_moves: float
    """Passes over a 16-bit cache in a decode step: reading it, and copying it to append."""
    unpack_moves: float
    """The same in 16-bit passes, where a packed cache is unpacked whole."""
    staging_moves: float
    """Passes over the 16-bit copy of a chunk's past that writing it out costs, reading aside."""
    scores_bytes: float
    """Bytes moved for each attention score where scores are written to memory (eager)."""
    launch_decode: float
    """Seconds of the host for each kernel it launches in a decode step; 0 in a CUDA graph."""
    launch_prefill: float
    launch_packed: float
    """Further seconds of the host for each packed matrix that a long chunk multiplies with."""
    recurrent_call: float
    """Seconds of the host for each operation of a recurrent mixer in a chunk."""
    launch_piece: float
    """Seconds of the host a layer of a chunk that is captured but for its attention."""
    launch_segment: float
    """Seconds of the host for each segment of a layer's past that is staged and attended to."""
    launch_latent: float
    """The same for each piece of latents, which is expanded before it is."""
    packed_launches: float
    """Further launches a layer of a decode step over a packed cache."""
    plan: float
    """Seconds of the host to plan attention of a shape it has not seen: each chunk is one, unless
    all layers slide."""
    plan_decode: float
    """The same for each decode step, whose length is new too, where plans are not kept."""
    first_call: float
    """Seconds that a prompt of a shape not seen before takes longer: kernels are chosen, loaded."""
    host_step: float
    """Seconds of the host around a forward pass."""
    step: float
    """Seconds between two decode steps: choosing a token, handing it out."""
    card_layer: float
    """Seconds of the card a layer and pass that neither rate explains."""
    card_launch: float
    """The same a kernel of a decode step."""
    card_routed: float
    """The same of what sends tokens to experts: sorts, top-k, gathers."""
    card_copy: float
    """The same a layer whose queries and keys are normed, of several sequences: they are copied out
    of the joined product's rows, between which nothing overlaps."""
    overlap: float
    """Of `card_launch`, what a packed product hides behind the kernel before it."""
    ready: float
    """Of `card_launch`, what is left of kernels that are no products in a step of the runtime's own
    layers with weights of 4 bits, since they leave rows ready."""
    early: float
    """Of `card_layer`, what is left of the runtime's own layers in a step with weights of 4 bits:
    less of a product and of attention is beginning and end (stream.cu, wide.cu, rows asked for
    early)."""
    latent_tile: float
    """The same a tile of latents and round of programs, in a step."""
    latent_packed: float
    """What a tile of packed latents takes, in that of 16-bit ones: every program unpacks it."""
    latent_split: float
    """The same a part of them that is merged."""
    round: float
    """The same of a step a layer and round of attention's blocks after the first."""
    merge: float
    """The same a layer and MERGED parts of a head that are put together."""
    card_segment: float
    """The same a staged segment of a layer."""
    tail_layer: float
    """The same a layer of a decode step, where some tokens wait in 16 bits."""
    turn_layer: float
    """The same where heads are rotated; smoothing takes half of it."""
    unpacks_whole_cache: bool
    repeats_kv: bool
    masks_windows: bool
    fused: bool
    """The kvpareto runtime's passes: fused, captured, staged."""


def coefficients_of(values: dict[str, Any]) -> Coefficients:
    """Of an entry of the profile."""
    return Coefficients(**{f.name: values[f.name] for f in fields(Coefficients)})


def shipped(engine: Engine) -> Coefficients:
    """What this package brings, fitted on one GPU."""
    return coefficients_of(load()[engine.name]["coefficients"])


def before_runs(engine: Engine) -> Coefficients:
    """The same before whole runs were seen: from kernels alone, where they were timed."""
    entry = load()[engine.name]
    return coefficients_of(entry.get("from_kernels", entry["coefficients"]))


@lru_cache(maxsize=1)
def load() -> dict[str, dict[str, Any]]:
    """The profile's engines by name."""
    engines: dict[str, dict[str, Any]] = json.loads(read("hardware/latency.json"))["engines"]
    return engines
