"""What matrix products cost in the roofline: those of a step, of a chunk, and packed ones by rows.

Packed weights are multiplied with in several ways (runtime/weights/linear.py, launch.py):

    rows        4 bits      8 bits      seconds
    1, 2        stream.cu   row.cu      read at `streamed`, `weights_8`, and further rows
    3, 4        stream.cu   Triton      read at `streamed`, `tiles_8`, and further rows
    5 to 16     parts.cu    Triton      read at `parts`, `tiles_8`, and arithmetic; sweep.cu and
                                        `sweep` where layers are not the runtime's own
    17 to 32    wide.cu     Triton      read at `wide`, `tiles_8`, and arithmetic
    33 to 64    wide.cu     ring.cu     read at `wide`, `tiles`, and arithmetic, both longer where
                                        columns are too few for all multiprocessors (`wide_slack`)
    more        a 16-bit copy is written, and the library multiplies; or codes of 8 bits, where rows
                are rounded to them (w4a8, `matmul_eight`)

where arithmetic is 2 * weights * rows / (`few_rows` * dense rate), `parts_rows` for parts.cu and
`wide_rows` for wide.cu, of the
rows that a kernel's tiles hold: unpacking takes the same units, so that neither hides the other
(docs/weights_runtime.md has the kernels' times). Where a GPU is not a Hopper, and in runs from
before, 17 to 64 rows of 4 bits read at `tiles`; runs from before had row.cu for 1 and 2, read at
`weights_4`, and sweep.cu from 3 on.
"""

import functools

import numpy as np
import numpy.typing as npt

from ..memory.activation.workspace import FEW_ROWS
from . import roofline_experts as experts
from .attention_group import Floats, Number
from .card import Card
from .job import LatencyJob
from .roofline_experts import PACKED

FOUR = 0.8
"""Stored bytes of a weight below which it has 4 bits."""
ONE_ROW, SWEEP, TILE = 2, 16, 32  # rows up to which row.cu, sweep.cu and tile.cu are taken
STREAM, WIDE = 4, 16  # rows up to which stream.cu is taken, and beyond which wide.cu is
FIRST_ROWS = (1, ONE_ROW + 1, STREAM + 1, 9, SWEEP + 1, TILE + 1)  # of each kernel, and its tiles
SECOND_ROW = 6
"""Rows of the tensor cores' kernels in whose time row.cu does a second one: 12 us for 4096 x 28672
and the three others of a layer of Llama-3.1-8B, an H200."""


def step(job: LatencyJob, card: Card) -> Number:
    """Seconds of all products of a decode step, the output head's too."""
    c = card.c
    packed = (job.weight < PACKED) & c.fused
    kinds = [job.weight < FOUR, job.weight < PACKED]
    reached = np.select(kinds, [c.weights_4, c.weights_8], c.weights_16)
    plain = np.where(packed, 0.0, job.linear)
    read = job.weight * plain / reached
    flops = 2 * job.batch * (plain + job.expert * job.expert_share + job.head)
    read = (read + 2.0 * job.head) / card.stream + experts.step(job, card)
    others = np.maximum(read, flops / card.matmul)
    many = _dense(job, job.batch, card) + _copied(job, card)
    of_packed = np.where(job.batch > FEW_ROWS, many, few_rows(job, job.batch, card))
    return others + np.where(packed, of_packed, 0.0)


def chunk(job: LatencyJob, rows: Number, card: Card) -> Floats:
    """Seconds of a chunk's products. Few rows leave a product's tiles partly empty."""
    packed = job.weight < PACKED
    dense = _dense(job, rows, card)
    if np.any(card.matmul_eight):
        eight = (job.rounded_rows > 0) & packed & (rows > FEW_ROWS)
        dense = np.where(eight, dense * (card.matmul / card.matmul_eight), dense)
    routed = experts.chunk_products(job, rows, card)
    scans = job.scan_flops * rows / card.matmul
    fetched = experts.chunk_bytes(job, rows) / card.stream
    # Many rows multiply with a 16-bit copy of packed weights, which is written first.
    copied = dense + routed + _copied(job, card) + fetched
    few = few_rows(job, rows, card) + np.maximum(routed, fetched)
    plain = np.maximum(dense + routed, job.linear * job.weight / card.stream + fetched)
    kinds = [packed & (rows > FEW_ROWS), packed & (card.c.fused & (rows <= FEW_ROWS))]
    seconds: Floats = np.select(kinds, [copied, few], plain) + scans
    return seconds


def few_rows(job: LatencyJob, rows: Number, card: Card) -> Number:
    """Seconds of dense products of up to FEW_ROWS rows with packed weights: no longer than a kernel
    of more rows needs, which would take them too."""
    kernels = [_kernel_of(job, np.maximum(rows, first), card) for first in FIRST_ROWS]
    return functools.reduce(np.minimum, kernels)


def _kernel_of(job: LatencyJob, rows: Number, card: Card) -> Number:
    """The same by the kernel that is taken for so many rows."""
    c = card.c
    four: npt.NDArray[np.bool_] = np.asarray(job.weight < FOUR)
    swept = four & (rows <= SWEEP) & (np.asarray(job.overlapping_launches) > 0)
    whole = four & (np.asarray(job.whole_number_products) > 0)
    streamed, wide = whole & (rows <= STREAM), whole & (rows > WIDE) & card.hopper
    one, eight = rows <= ONE_ROW, ~four & (rows <= TILE)
    rate = np.select(
        [streamed, wide, one & four, one, swept, eight],
        [c.streamed, c.wide, c.weights_4, c.weights_8, c.sweep, c.tiles_8],
        c.tiles,
    )
    held = np.select(
        [streamed, one, four & (rows <= 8), rows <= SWEEP, rows <= TILE],
        [
            0.0,
            SECOND_ROW * (np.maximum(rows, 1.0) - 1.0),
            8.0,
            float(SWEEP),
            float(TILE),
        ],
        float(FEW_ROWS),
    )
    flops = np.where(wide, card.wide_rows, card.few_rows)
    slack = np.where(wide, job.wide_slack, 1.0)
    ready = whole & (np.asarray(job.ready_rows) > 0) & (rows > STREAM) & (rows <= SWEEP)
    others = job.linear - np.where(ready, job.parts_linear, 0.0)
    parts = np.where(ready, np.where(rows <= 8, job.parts_8, job.parts_16), 0.0)
    seconds = others * slack * (job.weight / (rate * card.stream) + 2 * held / flops)
    seconds = seconds + np.where(streamed, job.row_inputs * rows * c.row_input, 0.0)
    unpacked = 2 * parts * (held + c.parts_unpacked) / card.parts_rows
    return seconds + np.maximum(unpacked, job.parts_linear * job.weight / card.stream * (parts > 0))


def _dense(job: LatencyJob, rows: Number, card: Card) -> Number:
    # operations / (rate * rows / (rows + matmul_rows))
    begun = 1.0 + card.c.matmul_inputs / job.inputs
    return 2 * job.linear * begun * (rows + card.c.matmul_rows) / card.matmul


def _copied(job: LatencyJob, card: Card) -> Number:
    return job.linear * (job.weight + card.c.dequantize_bytes) / card.stream
