"""The roofline itself: seconds of prefill and decode of a Job, whole spaces or single runs at once.

For each prefill chunk, and for each decode step, the GPU's time is a sum of

    matrix products   max(operations / rate, weight bytes / bandwidth); where weights are packed,
                      both, and in a long chunk writing their 16-bit copy
    attention         operations / rate, fewer while few query rows are there to fill the card
    cache             bytes read, copied, unpacked or written out / bandwidth
    the rest          norms, RoPE, activations: bytes / bandwidth; a time for each small kernel

with rates that are a stated fraction of the datasheet's. The host needs a time for each kernel it
launches; whichever of the two is longer counts. The position in the prompt enters both linearly,
so a prompt's chunks are summed in closed form.

The kvpareto engine's host: passes are captured where they can be (runtime/forward.py), a decode
step whole, a chunk of few tokens between its attention calls, which are launched segment by
segment; other chunks kernel by kernel. roofline_attention.py has what attention costs,
roofline_products.py and roofline_experts.py what dense products and routed experts cost.
"""

from dataclasses import replace

import numpy as np

from ..hardware.gpus import Hardware
from ..light_dataclass import dataclass
from ..memory.activation.last_layer import WHOLE_TO
from ..memory.activation.workspace import FEW_ROWS, GRAPH_FROM, PIECES_TO
from ..models.spec import ModelSpec
from ..workload import Workload
from . import roofline_experts as experts
from . import roofline_products as products
from .attention_group import Floats, Number
from .card import Card
from .efficiency import Coefficients
from .job import ConfigurationAxes, LatencyJob, job_of
from .kernel_launches import ROUTED_CALL, TORCH_CALL
from .roofline_attention import attention_host, chunk_attention, decode_cache
from .roofline_experts import PACKED

TENSOR_LAUNCHES = 80
"""What a layer's appends take where a pair spans a tensor, in launches of ours: some 100 of torch's
small kernels (kernels/tensor_append.py), as timed in five runs."""
ROTATION_LAUNCHES = 4
"""Products that rotate a layer's keys and values, and between its captured pieces its queries and
attention's output."""
BLOCK = 64  # tokens of a block of a delta net's plain code
SMOOTHING = 18  # operations that a chunk's keys are smoothed by (runtime/cache/smoothing.py)


@dataclass(frozen=True, slots=True, eq=False)
class Seconds:
    """TTFT [W, F, C] and TPOT [W, F, 1]."""

    ttft: Floats
    tpot: Floats


def sweep(
    spec: ModelSpec,
    workload: Workload,
    hardware: Hardware,
    coefficients: Coefficients,
    axes: ConfigurationAxes,
    of_steps: Coefficients | None = None,
) -> Seconds:
    """TTFT and TPOT of every combination of the axes, in seconds. `of_steps`: where TPOT has
    coefficients of its own (an end of an interval)."""
    card = Card(hardware, coefficients)
    # Prefill knows no more of a format than this, so most of a space's are alike to it.
    alike = (axes.k_bits * 32 + axes.v_bits) * 2 + axes.per_tensor
    alike = ((alike * 4 + axes.rotated) * 2 + axes.smoothed) * 2 + (axes.tail > 0)
    # A dict, since np.unique imports numpy.ma, which takes longer than a plan's prefill.
    number: dict[float, int] = {}
    which = np.array([number.setdefault(key, len(number)) for key in alike.tolist()])
    first = np.zeros(len(number), dtype=np.int64)
    first[which[::-1]] = np.arange(len(which))[::-1]  # the earliest of each kind is written last
    ttft = _prefill(job_of(spec, workload, axes.at(first)), card)
    steps = card if of_steps is None else Card(hardware, of_steps)
    return Seconds(ttft[:, which], _decode(job_of(spec, workload, axes), steps))


def seconds(
    job: LatencyJob,
    hardware: Hardware,
    coefficients: Coefficients,
    of_steps: Coefficients | None = None,
) -> Seconds:
    """TTFT and TPOT of a job, whatever its fields' shapes."""
    steps = Card(hardware, of_steps or coefficients)
    return Seconds(_prefill(job, Card(hardware, coefficients)), _decode(job, steps))


def _decode(job: LatencyJob, card: Card) -> Floats:
    c = card.c
    rest = job.batch * (_moved(job, card) / card.stream + job.scan_flops / card.matmul)
    early = (np.asarray(job.whole_number_products) > 0) & (job.weight < products.FOUR)
    full = job.layers - np.where(early, job.own_layers * (1.0 - c.early), 0.0)
    small = full * c.card_layer + job.layers * c.tail_layer * job.tail
    small = small + job.layers * c.turn_layer * (job.rotated + 0.5 * job.smoothed)
    small = small + c.card_launch * (_step_launches(job, c) + _tensor_launches(job))
    small = small + c.card_routed * experts.launches(job)
    several = np.asarray(job.batch) > 1
    small = small + c.card_copy * np.where(several, job.copied_heads * job.normed_heads, 0.0)
    packed = (job.k_bits < 16) | (job.v_bits < 16)
    launches = job.launches + np.where(packed, job.layers * c.packed_launches, 0.0)
    host = c.host_step * (1 - c.fused) + c.plan_decode + c.launch_decode * launches
    seconds: Floats = (
        np.maximum(host, products.step(job, card) + rest + decode_cache(job, card) + small)
        + c.step * job.chooses_tokens
    )
    return seconds


def _step_launches(job: LatencyJob, c: Coefficients) -> Number:
    """Kernels of a decode step, each as much as it does not overlap with the one before."""
    packed = job.weight < PACKED
    joined = np.where(packed, job.joined_launches, 0.0)
    hidden = c.overlap * np.where(packed, job.matrices - joined, 0.0)
    gated = np.where(job.batch <= FEW_ROWS, job.plain_gates, 0.0)  # one kernel, where rows are few
    others = job.fused_launches - job.matrices
    ready = job.ready_rows * (job.weight < products.FOUR) * (job.own_layers > 0) * (1.0 - c.ready)
    return (
        job.fused_launches - joined - job.overlapping_launches * (hidden + gated) - ready * others
    )


def _prefill(job: LatencyJob, card: Card) -> Floats:
    """The full chunks, what is left of the prompt, and the output head."""
    full = np.floor(job.context / job.chunk)
    done = full * job.chunk
    rest = job.context - done
    passes = _passes(job, job.chunk, 0.0, full, card)
    if np.any(rest > 0):
        passes = passes + _passes(job, np.maximum(rest, 1.0), done, np.minimum(rest, 1.0), card)
    positions = np.where(job.full_logits, job.context, 1.0)
    head = 2.0 * job.head * job.batch * positions / card.matmul
    head = np.maximum(head, 2.0 * job.head / card.stream)
    total: Floats = passes + head + card.c.first_call
    return total


def _passes(job: LatencyJob, length: Number, done: Number, count: Number, card: Card) -> Floats:
    """Sum over `count` chunks of `length` tokens, after `done` others, of max(host, card), each of
    what does not depend on the position and what does."""
    c = card.c
    rows = length * job.batch
    job = _read(job, rows, card)
    fixed = products.chunk(job, rows, card) + rows * _moved(job, card) / card.stream
    fixed = fixed + experts.sent(job, rows, card) + job.layers * c.card_layer
    fixed = fixed + c.card_launch * (job.fused_launches + _tensor_launches(job))
    fixed = fixed + c.card_routed * experts.launches(job)
    level, slope = chunk_attention(job, length, card)
    host, climb = _host(job, length, card)
    host, fixed = host + climb * done, fixed + level + slope * done
    return sum_of_longer(host, climb * length, fixed, slope * length, count)


def _read(job: LatencyJob, rows: Number, card: Card) -> LatencyJob:
    """The job of a pass of `rows` rows, without what nobody reads (unread_rows.py)."""
    if not card.c.fused:
        return job
    hidden = 1.0 - np.asarray(job.full_logits)  # but for the last row
    spared = job.last_row_alone * hidden * (np.asarray(rows) > WHOLE_TO)
    kinds = tuple(replace(kind, layers=kind.layers - spared * kind.unread) for kind in job.kinds)
    return replace(
        job,
        linear=job.linear - spared * job.unread_linear,
        expert=job.expert - spared * job.unread_expert,
        fused_moved_bytes=job.fused_moved_bytes - spared * job.unread_moved,
        kinds=kinds,
    )


def _moved(job: LatencyJob, card: Card) -> Number:
    """Bytes of everything but products, attention and the cache, of one token."""
    return job.fused_moved_bytes if card.c.fused else job.moved_bytes


def _tensor_launches(job: LatencyJob) -> Number:
    """The same of appends where a pair spans a tensor."""
    return job.per_tensor * job.layers * TENSOR_LAUNCHES


def _host(job: LatencyJob, length: Number, card: Card) -> tuple[Number, Number]:
    """Seconds of the host for one chunk: (at position 0, for each token of position)."""
    c = card.c
    if not c.fused:
        full = sum(k.layers * (k.reach >= job.context) for k in job.kinds)
        grows: Floats = np.asarray(np.asarray(full) > 0, dtype=np.float64)
        return c.host_step + c.launch_prefill * job.launches + c.plan * grows, 0.0
    rows = length * job.batch
    copied = (job.weight < PACKED) & (rows > FEW_ROWS)
    launches = job.host_launches + TORCH_CALL * _tensor_launches(job)
    launches = launches + ROUTED_CALL * experts.launches(job) * experts.times(job, rows)
    rotated_layers = job.layers * job.rotated
    launches = (
        launches
        + ROTATION_LAUNCHES * rotated_layers
        + TORCH_CALL * SMOOTHING * job.layers * job.smoothed
    )
    eager = c.launch_prefill * launches + np.where(copied, c.launch_packed * job.matrices, 0.0)
    eager = eager + c.recurrent_call * (job.recurrent_calls + job.block_calls * length / BLOCK)
    pieces = (job.context >= GRAPH_FROM * job.chunk) & (length == job.chunk)
    pieces = pieces & (job.chunk <= PIECES_TO) & (np.asarray(job.recurrent_layers) == 0)
    level, slope = attention_host(job, length, card)
    between = (
        c.launch_piece * job.layers + c.launch_prefill * ROTATION_LAUNCHES / 2 * rotated_layers
    )
    host = np.where(pieces, between, eager)
    return c.host_step + host + level, slope


def sum_of_longer(
    host: Number, climb: Number, fixed: Number, slope: Number, count: Number
) -> Floats:
    """Sum of max(host + climb * j, fixed + slope * j) over j = 0 .. count - 1; climbs >= 0.

    The two lines cross at most once: one holds up the first chunks, the other the rest.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = np.ceil((host - fixed) / (slope - climb))
    crossing = np.where(np.isfinite(crossing), crossing, 0.0)
    first = np.clip(crossing, 0.0, count)  # chunks before the crossing
    # Which line is longer after the crossing; all along where there is none.
    later = np.where(slope != climb, slope > climb, fixed >= host)
    on_host = np.where(later, first, count - first)
    before = first * (first - 1) / 2
    all_steps = count * (count - 1) / 2
    host_steps = np.where(later, before, all_steps - before)
    total: Floats = on_host * host + host_steps * climb
    return total + (count - on_host) * fixed + (all_steps - host_steps) * slope
