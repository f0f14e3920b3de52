"""How far dense products of few rows fill a card: what wide.cu and parts.cu take in the time that
they would if every multiprocessor were busy.

17 to 64 rows: a block has 256 columns; blocks share a product's inputs, up to four of them, as long
as all find a multiprocessor (runtime/weights/cuda/cuda_wide.py). A matrix of few columns leaves the
others idle: 2,048 columns are 8 blocks, or 32 that share, of 132 multiprocessors.

5 to 16 rows: a warp takes whole strips of 32 columns, or slices of them, and a product is done
when its busiest warp is (parts_cut.py).
"""

import functools
from collections.abc import Iterator
from enum import Enum

from ..memory.activation.kvpareto_engine import FUSED_LAYERS
from ..memory.activation.workspace import MULTIPROCESSORS
from ..models.spec import Attention, DenseFFN, Layer, ModelSpec, MoEFFN
from .parts_cut import STRIP, UNIT, cut_of, together

COLUMNS, SHARING = 256, 4
SHARED = 227 * 1024  # bytes of shared memory that a block of an H100 or H200 may have


def wide_slack(spec: ModelSpec) -> float:
    """Mean over the weights of products that the runtime joins; 1 without such products."""
    taken = weights = 0.0
    for inputs, outputs, _ in _products(spec):
        taken += inputs * outputs * slack(outputs)
        weights += inputs * outputs
    return taken / weights if weights else 1.0


def slack(outputs: int) -> float:
    """Time of a product of so many columns, in that of one which fills every multiprocessor."""
    columns, shared = -(-outputs // COLUMNS), 1
    while 2 * shared <= SHARING and 2 * shared * columns <= MULTIPROCESSORS:
        shared *= 2
    rounds = -(-columns * shared // MULTIPROCESSORS)
    return rounds * MULTIPROCESSORS * COLUMNS / (shared * outputs)


def row_inputs(spec: ModelSpec, linear: float) -> float:
    """Inputs of a token in all dense products, of `linear` weights: what has no product here is
    counted as square."""
    inputs = weights = 0.0
    for width, outputs, _ in _products(spec):
        inputs += width
        weights += width * outputs
    return inputs + max(0.0, linear - weights) / spec.hidden


def mean_inputs(spec: ModelSpec, linear: float) -> float:
    """Inputs of an output of dense products, in the mean, of `linear` weights: what has no product
    here has as many inputs as the model has channels."""
    outputs = weights = 0.0
    for inputs, width, _ in _products(spec):
        outputs += width
        weights += inputs * width
    outputs += max(0.0, linear - weights) / spec.hidden
    return linear / outputs if outputs else float(spec.hidden)


def parts_work(spec: ModelSpec, rows: int) -> tuple[float, float]:
    """Weights of the products of `rows` rows, 5 to 16, that parts.cu takes, and the same times
    what they take in the time of a full card. It takes rows that are ready in whole numbers: all
    of the runtime's own layers, of others what follows a gate."""
    own = spec.decoder_type in FUSED_LAYERS
    taken = slow = 0.0
    for inputs, outputs, part in _products(spec):
        of_ffn = part is not _Part.ATTENTION
        times = parts_slack(inputs, outputs, part is _Part.GATED, rows) if own or of_ffn else None
        if times is not None:
            taken += inputs * outputs
            slow += inputs * outputs * times
    return taken, slow


@functools.lru_cache(maxsize=1024)
def parts_slack(inputs: int, outputs: int, gated: bool, rows: int) -> float | None:
    """Time of a product by parts.cu, in that of one whose weights keep all warps of a card busy;
    None where it does not take it."""
    width = outputs // 2 if gated else outputs
    if inputs % UNIT or width % STRIP:
        return None
    coarse = together(outputs, gated)
    cut = cut_of(inputs, outputs, rows, gated, coarse, MULTIPROCESSORS, SHARED)
    if cut is None:
        return None
    strips = width // STRIP
    at_once = cut.warps * MULTIPROCESSORS * UNIT * STRIP
    return cut.time(inputs, strips, gated, coarse, MULTIPROCESSORS) * at_once / (inputs * outputs)


class _Part(Enum):
    """What a product is of: its x comes from a norm or attention, or it has a gate, or follows
    one."""

    ATTENTION = 0
    GATED = 1
    DOWN = 2


def _products(spec: ModelSpec) -> Iterator[tuple[int, int, _Part]]:
    """Inputs and outputs: q, k and v as one, gate and up as one."""
    for layer in spec.layers:
        for mixer in layer.mixers:
            if isinstance(mixer, Attention):
                cached = 0 if mixer.shares_kv_with is not None else mixer.head_dim + mixer.value_dim
                queries = mixer.query_heads * mixer.head_dim
                yield spec.hidden, queries + mixer.kv_heads * cached, _Part.ATTENTION
                yield mixer.query_heads * mixer.value_dim, spec.hidden, _Part.ATTENTION
        width, gated = _dense(layer)
        if width:
            yield spec.hidden, (1 + gated) * width, _Part.GATED if gated else _Part.ATTENTION
            yield width, spec.hidden, _Part.DOWN if gated else _Part.ATTENTION


def _dense(layer: Layer) -> tuple[int, bool]:
    """Width of a layer's dense FFN, of experts that all tokens share, and whether it has a gate."""
    if isinstance(layer.ffn, DenseFFN):
        return layer.ffn.width, layer.ffn.gated
    if isinstance(layer.ffn, MoEFFN):
        return layer.ffn.shared_width, layer.ffn.gated
    return 0, False
