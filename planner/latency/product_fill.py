"""How far dense products of 17 to 64 rows fill a card: what wide.cu takes in that of a full one.

A block has 256 columns; blocks share a product's inputs, up to four of them, as long as all find a
multiprocessor (runtime/weights/cuda/cuda_wide.py). A matrix of few columns leaves the others idle:
2,048 columns are 8 blocks, or 32 that share, of 132 multiprocessors.
"""

from collections.abc import Iterator

from ..memory.activation.workspace import MULTIPROCESSORS
from ..models.spec import Attention, DenseFFN, ModelSpec, MoEFFN

COLUMNS, SHARING = 256, 4


def wide_slack(spec: ModelSpec) -> float:
    """Mean over the weights of products that the runtime joins; 1 without such products."""
    taken = weights = 0.0
    for inputs, outputs in _products(spec):
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


def _products(spec: ModelSpec) -> Iterator[tuple[int, int]]:
    """Inputs and outputs: q, k and v as one, gate and up as one."""
    for layer in spec.layers:
        for mixer in layer.mixers:
            if isinstance(mixer, Attention):
                cached = 0 if mixer.shares_kv_with is not None else mixer.head_dim + mixer.value_dim
                queries = mixer.query_heads * mixer.head_dim
                yield spec.hidden, queries + mixer.kv_heads * cached
                yield mixer.query_heads * mixer.value_dim, spec.hidden
        width = 0
        if isinstance(layer.ffn, DenseFFN):
            width = layer.ffn.width
        elif isinstance(layer.ffn, MoEFFN):
            width = layer.ffn.shared_width
        if width and layer.ffn is not None:
            yield spec.hidden, (1 + layer.ffn.gated) * width
            yield width, spec.hidden
