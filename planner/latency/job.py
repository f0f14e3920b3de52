"""The work of runs as arrays: a model's operations and bytes, and a configuration's formats.

Every field of a Job broadcasts against the others. `job_of` makes one of a whole space, with axes
[weights, formats, chunks]; `stack` one of many single runs, with an axis [runs, 1, 1]. roofline.py
turns either into seconds, so that what is fitted to runs is the very formula that plans.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats.code_tables import CODED
from ..formats.configuration import SPACE_BITS, Configuration, Granularity
from ..formats.space import Space
from ..light_dataclass import dataclass
from ..memory.weights import weight_bytes
from ..models.spec import ModelSpec, Part
from ..workload import Workload
from .attention_group import NOTHING, OF_CUTS, AttentionGroup, Floats, Number, attention_group
from .unread_rows import unread_rows
from .work import Work, work_of

_BLOCKED = (Granularity.PER_CHANNEL, Granularity.PER_BLOCK)


@dataclass(frozen=True, slots=True, eq=False)
class ConfigurationAxes:
    """The three axes a latency is computed on; arrays of length W, F and C."""

    weights: tuple[int, ...]
    rounded_rows: tuple[bool, ...]
    """Whether prompts' rows are in 8 bits, with each of them."""
    k_bits: Floats
    v_bits: Floats
    kv_bytes: Floats
    """Bytes of the cache at context + output tokens, all sequences, with the first of `chunks`."""
    tail: Floats
    """1 where some tokens wait in 16 bits beside the packed ones (a window, unfilled blocks)."""
    rotated: Floats
    """1 where heads are rotated."""
    smoothed: Floats
    by_channel: Floats
    """1 where a pair belongs to a channel of keys."""
    per_tensor: Floats
    """1 where a pair spans a layer's tensor, which torch's own operations append."""
    coded: Floats
    """1 where the decode kernel takes a side neither as integers of 8, 4 or 2 bits nor in 16."""
    chunks: tuple[int | None, ...]

    @classmethod
    def of(cls, config: Configuration, kv_bytes: int) -> "ConfigurationAxes":
        """One configuration."""
        packed = config.k_bits < 16 or config.v_bits < 16
        tail = config.residual > 0 or config.sinks > 0 or config.granularity in _BLOCKED
        values = {
            "k_bits": config.k_bits,
            "v_bits": config.v_bits,
            "kv_bytes": kv_bytes,
            "tail": packed and tail,
            "rotated": packed and (config.rotation or config.affine),
            "smoothed": packed and config.smoothing,
            "by_channel": config.granularity is Granularity.PER_CHANNEL,
            "per_tensor": packed and config.granularity is Granularity.PER_TENSOR,
            "coded": any(name in CODED for name in (config.k_format, config.v_format))
            or not {config.k_bits, config.v_bits} <= {*SPACE_BITS},
        }
        arrays = {name: np.array([float(value)]) for name, value in values.items()}
        rounded = (config.activation_bits < 16,)
        return cls((config.weight_bits,), rounded, chunks=(config.chunk,), **arrays)

    @classmethod
    def of_space(cls, space: Space, kv_bytes: Floats) -> "ConfigurationAxes":
        """All of a space; `kv_bytes` [F]."""
        packed = ((space.k_bits < 16) | (space.v_bits < 16)).astype(float)
        blocked = np.array([layout.granularity in _BLOCKED for layout in space.layouts])
        whole = [layout.granularity is Granularity.PER_TENSOR for layout in space.layouts]
        channels = [layout.granularity is Granularity.PER_CHANNEL for layout in space.layouts]
        return cls(
            weights=space.weights,
            rounded_rows=(False,) * len(space.weights),
            k_bits=space.k_bits.astype(float),
            v_bits=space.v_bits.astype(float),
            kv_bytes=kv_bytes,
            tail=packed * (blocked[space.layout] | (space.of_layout("residual") != 0)),
            rotated=packed * (space.of_layout("rotation") != 0),
            smoothed=packed * (space.of_layout("smoothing") != 0),
            by_channel=np.array(channels, dtype=float)[space.layout],
            per_tensor=packed * np.array(whole)[space.layout],
            coded=np.zeros(len(packed)),
            chunks=space.chunks,
        )

    def at(self, formats: Sequence[int] | npt.NDArray[np.intp]) -> "ConfigurationAxes":
        """These axes with some of the formats only."""
        arrays = {name: getattr(self, name)[formats] for name in _OF_FORMAT}
        return ConfigurationAxes(self.weights, self.rounded_rows, chunks=self.chunks, **arrays)


_OF_FORMAT = (
    "k_bits",
    "v_bits",
    "kv_bytes",
    "tail",
    "rotated",
    "smoothed",
    "by_channel",
    "per_tensor",
    "coded",
)


@dataclass(frozen=True, slots=True, eq=False)
class LatencyJob:
    """One prompt and its decode steps. Numbers of a model, of a workload, of configurations."""

    context: Number
    tokens: Number
    """Context and output."""
    batch: Number
    full_logits: Number
    """1 where logits of every position are computed."""
    layers: Number
    linear: Number
    matrices: Number
    """Dense matrix products of a pass, the output head aside."""
    expert: Number
    expert_share: Number
    top_k: Number
    wide_slack: Number
    inputs: Number
    row_inputs: Number
    parts_linear: Number
    parts_8: Number
    parts_16: Number
    normed_heads: Number
    experts: Number
    """Routed experts of all layers."""
    head: Number
    scan_flops: Number
    moved_bytes: Number
    fused_moved_bytes: Number
    routed_bytes: Number
    launches: Number
    fused_launches: Number
    host_launches: Number
    routed_launches: Number
    packed_routed_launches: Number
    joined_launches: Number
    plain_gates: Number
    own_layers: Number
    recurrent_layers: Number
    recurrent_calls: Number
    block_calls: Number
    weight: Number
    """Stored bytes of one weight of a matrix product."""
    rounded_rows: Number
    """1 where a prompt's rows are in 8 bits."""
    k_bits: Number
    v_bits: Number
    kv_bytes: Number
    seen: Number
    """The part of these that a step reads: what slides is held for a chunk's first query too."""
    tail: Number
    rotated: Number
    smoothed: Number
    by_channel: Number
    per_tensor: Number
    coded: Number
    chunk: Number
    """Tokens of a prefill chunk, at most the context."""
    eight_bit_attention: Number
    """1 where the engine attends to chunks in 8 bits; 0 describes runs from before it did."""
    overlapping_launches: Number
    """The same of steps whose launches overlap, with sweep.cu and Granite's gate fused."""
    whole_number_products: Number
    """The same of few rows times 4 bits by stream.cu (in whole numbers) and wide.cu."""
    conflict_free_merges: Number
    """The same of parts of a step's attention, merged without bank conflicts."""
    copied_heads: Number
    """1 where queries and keys of several sequences are copied before they are normed, as in runs
    from before they were normed where they lie."""
    ready_rows: Number
    """1 where 5 to 16 rows of 4 bits go through parts.cu, and norms and attention leave rows ready
    for it; 0 describes runs from before."""
    last_row_alone: Number
    """The same of a prompt's last layer, run for the one row that is read."""
    chooses_tokens: Number
    """1 where a step chooses its token; benchmarks' passes do not."""
    unread_linear: Number
    unread_expert: Number
    unread_moved: Number
    kinds: tuple[AttentionGroup, ...]


def job_of(spec: ModelSpec, workload: Workload, axes: ConfigurationAxes) -> LatencyJob:
    """The job of every combination of the axes: weights [W, 1, 1], formats [1, F, 1], chunks
    [1, 1, C]."""
    work, unread = work_of(spec), unread_rows(spec)
    chunks = [min(chunk or workload.context, workload.context) for chunk in axes.chunks]
    values: dict[str, Number] = {name: float(getattr(work, name)) for name in _OF_WORK}
    values |= {name: getattr(axes, name).reshape(1, -1, 1) for name in _OF_FORMAT}
    kinds = tuple(attention_group(spec, workload, kind) for kind in work.attention)
    return LatencyJob(
        context=float(workload.context),
        tokens=float(workload.tokens),
        batch=float(workload.batch),
        full_logits=float(workload.full_logits),
        weight=_stored_weight(spec, work, axes.weights).reshape(-1, 1, 1),
        rounded_rows=np.array(axes.rounded_rows, dtype=np.float64).reshape(-1, 1, 1),
        chunk=np.array(chunks, dtype=np.float64).reshape(1, 1, -1),
        eight_bit_attention=1.0,
        overlapping_launches=1.0,
        whole_number_products=1.0,
        conflict_free_merges=1.0,
        copied_heads=0.0,
        ready_rows=1.0,
        last_row_alone=1.0,
        chooses_tokens=1.0,
        unread_linear=float(unread.linear),
        unread_expert=float(unread.expert),
        unread_moved=float(unread.moved_bytes),
        seen=_seen(kinds, workload.tokens, chunks[0]),
        kinds=kinds,
        **values,
    )


def _seen(kinds: Sequence[AttentionGroup], tokens: int, chunk: int) -> float:
    """The part of a cache of `tokens` tokens that a step attends to, where prompts ran in chunks
    of `chunk`."""
    sizes = np.array([float(kind.layers * kind.cache_elements) for kind in kinds])
    reach = np.array([float(kind.reach) for kind in kinds])
    held = float(sizes @ np.minimum(tokens, reach + chunk))
    return float(sizes @ np.minimum(tokens, reach)) / held if held else 1.0


_OF_WORK = (
    "layers", "linear", "matrices", "expert", "expert_share", "top_k", "experts", "wide_slack",
    "inputs", "row_inputs", "parts_linear", "parts_8", "parts_16", "normed_heads", "head",
    "scan_flops", "moved_bytes", "fused_moved_bytes", "routed_bytes", "launches",
    "fused_launches", "host_launches", "routed_launches", "packed_routed_launches",
    "joined_launches", "plain_gates", "own_layers", "recurrent_layers", "recurrent_calls",
    "block_calls",
)  # fmt: skip


def _stored_weight(spec: ModelSpec, work: Work, bits: Sequence[int]) -> Floats:
    """Stored bytes of one weight of a matrix product at each of `bits`, scales included."""
    kept = 2.0 * (work.head + work.embedding)
    text = [weight_bytes(spec, b).parts.get(Part.TEXT, 0) for b in bits]
    matrices = max(1, work.linear + work.expert)
    return np.array([max(0.25, (size - kept) / matrices) for size in text])


def stack(jobs: Sequence[LatencyJob]) -> LatencyJob:
    """Single jobs as one whose fields are arrays [runs, 1, 1]."""
    most = max(len(job.kinds) for job in jobs)
    padded = [(*job.kinds, *[NOTHING] * (most - len(job.kinds))) for job in jobs]
    kinds = tuple(AttentionGroup(**_columns([row[i] for row in padded])) for i in range(most))
    return LatencyJob(**_columns(jobs), kinds=kinds)


def some_of(stacked: LatencyJob, runs: Sequence[int]) -> LatencyJob:
    """Some of the runs of a stack."""
    kinds = tuple(AttentionGroup(**_taken(kind, runs)) for kind in stacked.kinds)
    return LatencyJob(**_taken(stacked, runs), kinds=kinds)


def _taken(item: LatencyJob | AttentionGroup, runs: Sequence[int]) -> dict[str, Any]:
    names = (f.name for f in fields(item) if f.name != "kinds")
    return {name: np.take(getattr(item, name), runs, axis=-3) for name in names}


def _columns(items: Sequence[LatencyJob] | Sequence[AttentionGroup]) -> dict[str, Any]:
    columns = {}
    for name in (f.name for f in fields(items[0]) if f.name != "kinds"):
        column = [np.ravel(getattr(item, name)).astype(np.float64) for item in items]
        most = max(len(values) for values in column)  # cuts of a step; a last one may stand again
        alike = [np.pad(values, (0, most - len(values)), mode="edge") for values in column]
        columns[name] = np.stack(alike, axis=1).reshape(-1, len(items), 1, 1)
        if name not in OF_CUTS:
            columns[name] = columns[name][0]
    return columns
