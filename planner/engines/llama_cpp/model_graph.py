"""The graph of one forward pass as llama.cpp builds it: what its compute buffer must hold.

Follows src/llama-graph.cpp and src/models/ of build 11434: token embeddings with their unused
branches (a batch may come as vectors), position and cache indices, one mask a cache, attention with
or without flash attention, dense and routed feed-forward layers, logits of one token a sequence.
Sizes do not depend on weight formats, nor on biases and norms that work in place.

A layer's tensors are gone when the next begins, so the buffer is the same for any number of layers
once every neighbourhood of kinds has occurred: only those layers are built.
"""

from collections.abc import Sequence

from ...errors import BadInput
from ...models.spec import (
    Attention,
    LatentAttention,
    Layer,
    Mixer,
    ModelSpec,
    MoEFFN,
    RecurrentState,
)
from .attention_graph import PlainAttention
from .feed_forward_graph import dense_layer, expert_layer
from .graph_allocator import Graph, Tensor, buffer_bytes
from .graph_kinds import (
    ATTENTION_LAST,
    FOUR_POSITIONS,
    GEMMA4,
    NORM_FIRST,
    NORMS_BEHIND,
    RESIDUAL_FIRST,
    ROWS_BEHIND_NORM,
)
from .graph_nodes import (
    activated,
    binary,
    graph_input,
    matmul,
    normalized,
    picked_rows,
    scaled,
)
from .other_mixers import Inputs
from .run_settings import RunSettings

CUDA_ALIGNMENT = 128


def compute_bytes(spec: ModelSpec, run: RunSettings) -> int:
    """Bytes of the compute buffer where all runs on the processor."""
    return buffer_bytes(_Pass(spec, run).graph())


def device_compute_bytes(spec: ModelSpec, run: RunSettings) -> int:
    """The same of a CUDA device that holds all layers: tokens are looked up in host memory, and
    flash attention on a quantized cache has 16-bit copies of a layer's K and V."""
    return buffer_bytes(_Pass(spec, run, on_device=True).graph(), CUDA_ALIGNMENT)


def built_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Layers that show every neighbourhood of kinds: the first of each (before, itself, after)."""
    seen: set[tuple[Layer | None, Layer, Layer | None]] = set()
    kinds = []
    for before, layer, after in zip((None, *layers[:-1]), layers, (*layers[1:], None), strict=True):
        if (before, layer, after) not in seen:
            seen.add((before, layer, after))
            kinds.append(layer)
    return kinds


class _Pass(PlainAttention):
    """One pass of a full micro-batch."""

    def __init__(self, spec: ModelSpec, run: RunSettings, on_device: bool = False) -> None:
        self.spec, self.run, self.on_device = spec, run, on_device
        sequences = run.sequences
        self.tokens = -(-run.pass_tokens // sequences) * sequences
        self.streams = 1 if run.unified else sequences
        self._graph = Graph()
        self._kind = spec.decoder_type

    def graph(self) -> Graph:
        spec = self.spec
        self._select_layer_inputs()
        hidden = self._embedding = self._embedded()
        places = 4 if self._kind in FOUR_POSITIONS else 1
        self.positions = graph_input(places * self.tokens)
        self._attention_inputs()
        self.outputs = graph_input(self.run.sequences)
        self.state_ids = graph_input(self.run.sequences)
        layers = built_layers(spec.layers)
        late = spec.model_type == "gpt_oss"  # rows are picked behind the last layer
        last = self._kind in ROWS_BEHIND_NORM
        for index, layer in enumerate(layers):
            picks = index == len(layers) - 1 and not late and not last
            hidden = self._layer(layer, hidden, picks)
        if late:
            hidden.output = True
            hidden = picked_rows(spec.hidden, self.outputs, hidden)
        normed = normalized(hidden)
        if last:
            normed.output = True
            normed = picked_rows(spec.hidden, self.outputs, normed)
        normed.output = True
        logits = matmul(spec.vocab, normed)
        if spec.logit_softcap is not None:
            logits = activated(scaled(logits))
            logits = scaled(logits)
        logits.output = True
        self._graph.expand(logits)
        return self._graph

    def _embedded(self) -> Tensor:
        """Embeddings of tokens; the branches for vectors and for both are in the graph too."""
        hidden, tokens = self.spec.hidden, self.tokens
        if self.on_device:  # looked up on the other side, and copied
            embedded, rows = graph_input(hidden, tokens), graph_input(hidden, tokens)
        else:
            embedded = Tensor("get_rows", (hidden, tokens), [graph_input(tokens)])
            rows = Tensor("get_rows", (hidden, tokens), [graph_input(tokens)])
        self._graph.expand(embedded)
        if not self.on_device:
            self._graph.expand(graph_input(hidden, tokens))
        slots = graph_input(tokens, item=8)
        mixed = Tensor("dup", (hidden, tokens), [graph_input(hidden, tokens)])
        self._graph.expand(Tensor("set_rows", (hidden, tokens), [rows, slots, mixed], base=mixed))
        kind = self.spec.decoder_type
        if kind.startswith("gemma3") or kind in GEMMA4:  # scaled where rows are tokens
            embedded = Tensor("mul", embedded.shape, [embedded, graph_input(1, tokens)])
        self._graph.expand(embedded)
        return scaled(embedded) if kind in ("gemma", "gemma2") else embedded

    def _attention_inputs(self) -> None:
        """Indices, masks and rotations, one set for full attention and one for windows."""
        run = self.run
        widths = [m.kv_heads * m.value_dim for m in run.attentions(self.spec)]
        sets: dict[bool, Inputs] = {}
        for sliding in run.caches(self.spec):
            cells = run.cells(sliding, self.spec)
            keys = graph_input(self.tokens, item=8)
            values = self.tokens * (1 if run.flash else max(widths, default=1))
            mask_item = 2 if run.flash else 4
            mask = graph_input(cells, self.tokens // self.streams, 1, self.streams, item=mask_item)
            key_rotation, value_rotation = run.rotations(self.spec, sliding)
            sets[sliding] = (
                keys,
                graph_input(values, item=8),
                mask,
                graph_input(key_rotation, key_rotation) if key_rotation else None,
                graph_input(value_rotation, value_rotation) if value_rotation else None,
            )
        self.inputs = sets

    def _layer(self, layer: Layer, hidden: Tensor, picks: bool) -> Tensor:
        if layer.parallel:
            return self._parallel_layer(layer, hidden, picks)
        middle = hidden
        behind = self._kind in NORMS_BEHIND
        if len(layer.mixers) > 1:
            middle = self._side_by_side(layer, hidden, picks)
        elif layer.mixers:
            normed = hidden if behind else normalized(hidden)
            if self._kind in NORM_FIRST:
                self._graph.expand(normed)
            attended = self._mixed(layer.mixers[0], normed)
            middle = self._joined(layer, attended, hidden, picks)
        if layer.ffn is None:
            return middle
        if self._kind in GEMMA4 and isinstance(layer.ffn, MoEFFN):
            out = self._experts_beside_dense(layer.ffn, middle)
        else:
            out = self._feed_forward(layer, middle if behind else normalized(middle))
        if layer.sandwich_norms or behind:
            out = normalized(out)
        return self._with_layer_input(self._added(out, middle))

    def _feed_forward(self, layer: Layer, normed: Tensor) -> Tensor:
        if isinstance(layer.ffn, MoEFFN):
            return expert_layer(self._graph, self.spec, layer.ffn, normed, self.on_device)
        assert layer.ffn is not None
        return dense_layer(layer.ffn, normed, self.spec.hidden)

    def _parallel_layer(self, layer: Layer, hidden: Tensor, picks: bool) -> Tensor:
        """Attention and feed-forward read one normed input. Command R adds attention's output
        last; others add it to the residual before the feed-forward's."""
        residual, normed = hidden, normalized(hidden)
        attended = self._mixed(layer.mixers[0], normed)
        if picks:
            picked = (
                picked_rows(self.spec.hidden, self.outputs, tensor)
                for tensor in (attended, residual, normed)
            )
            attended, residual, normed = picked
        if self._kind in ATTENTION_LAST:
            out = binary("add", self._feed_forward(layer, normed), residual)
            return binary("add", out, attended)
        middle = binary("add", attended, residual)
        return binary("add", self._feed_forward(layer, normed), middle)

    def _side_by_side(self, layer: Layer, hidden: Tensor, picks: bool) -> Tensor:
        """Falcon-H1: attention and a state space, each with a norm of its own, then their sum."""
        attended = self._mixed(layer.mixers[0], normalized(hidden))
        for mixer in layer.mixers[1:]:
            attended = binary("add", attended, self._mixed(mixer, normalized(hidden)))
        middle = binary("add", attended, hidden)
        return picked_rows(self.spec.hidden, self.outputs, middle) if picks else middle

    def _joined(self, layer: Layer, attended: Tensor, residual: Tensor, picks: bool) -> Tensor:
        """The residual stream behind attention; of the last layer the rows that are wanted."""
        if picks:
            attended = picked_rows(self.spec.hidden, self.outputs, attended)
            residual = picked_rows(self.spec.hidden, self.outputs, residual)
        if layer.sandwich_norms or self._kind in NORMS_BEHIND:
            attended = normalized(attended)
        return self._added(attended, residual)

    def _added(self, out: Tensor, residual: Tensor) -> Tensor:
        """Their sum, in the order that decides which of both it takes the place of."""
        first = self._kind in RESIDUAL_FIRST
        return binary("add", residual, out) if first else binary("add", out, residual)

    def _mixed(self, mixer: Mixer, normed: Tensor) -> Tensor:
        match mixer:
            case Attention():
                return self._attention(mixer, normed)
            case LatentAttention():
                return self._latent(mixer, normed)
            case RecurrentState():
                return self._recurrent(mixer, normed)
        raise BadInput(
            f"{self.spec.model_type}'s compressed attention is not planned for llama.cpp",
            "use --engine transformers",
        )
