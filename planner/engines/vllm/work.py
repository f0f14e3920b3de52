"""What a model's tokens cost vLLM: what a token passes, and the states and activations beside it.

The former is counted in planner/models/token_work.py.
"""

from ...light_dataclass import dataclass
from ...models.spec import (
    Attention,
    DenseFFN,
    LatentAttention,
    Layer,
    ModelSpec,
    MoEFFN,
    RecurrentState,
)
from ...models.token_work import TokenWork, token_work


@dataclass(frozen=True, slots=True)
class VllmWork:
    """`state`: elements of a sequence's recurrent states. `moved`: elements of activations that a
    token reads and writes."""

    passed: TokenWork
    layers: int
    routed_layers: int
    recurrent_layers: int
    state: int
    moved: int


def work_of(spec: ModelSpec) -> VllmWork:
    """Count a model's text tower."""
    states = [(m, n) for m, n in spec.mixer_counts if isinstance(m, RecurrentState)]
    return VllmWork(
        passed=token_work(spec),
        layers=len(spec.layers),
        routed_layers=sum(isinstance(layer.ffn, MoEFFN) for layer in spec.layers),
        recurrent_layers=sum(n for _, n in states),
        state=sum(m.state * n for m, n in states),
        moved=sum(_moved(layer, spec.hidden) for layer in spec.layers),
    )


def _moved(layer: Layer, hidden: int) -> int:
    """Two norms with their residuals, what is turned and cached, and the FFN's product."""
    inner = 0
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            inner += 2 * (mixer.query_heads + 2 * mixer.kv_heads) * mixer.head_dim
        elif isinstance(mixer, LatentAttention):
            inner += 2 * mixer.query_heads * (mixer.nope_dim + mixer.rope_dim + mixer.value_dim)
        elif isinstance(mixer, RecurrentState):
            inner += 4 * mixer.width
    if isinstance(layer.ffn, DenseFFN):
        inner += 3 * layer.ffn.width
    elif isinstance(layer.ffn, MoEFFN):
        inner += layer.ffn.top_k * (3 * layer.ffn.width + 3 * hidden)
        inner += 3 * layer.ffn.shared_width
    return 8 * hidden + inner
