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
from .feed_forward_graph import dense_layer, expert_layer
from .graph_allocator import Graph, Tensor, buffer_bytes
from .graph_nodes import (
    activated,
    binary,
    graph_input,
    hadamard,
    matmul,
    normalized,
    picked_rows,
    rotated,
    scaled,
    stored,
    strided,
    view,
)
from .other_mixers import Inputs, OtherMixers
from .run_settings import RunSettings

CUDA_ALIGNMENT = 128


NORMS_BEHIND = frozenset({"olmo2", "olmo3", "exaone4"})
"""Model types with norms behind attention and feed-forward layers alone."""
FUSED = frozenset({"phi3"})
"""Model types whose queries, keys and values are one product, of which they are views."""


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


class _Pass(OtherMixers):
    """One pass of a full micro-batch."""

    def __init__(self, spec: ModelSpec, run: RunSettings, on_device: bool = False) -> None:
        self.spec, self.run, self.on_device = spec, run, on_device
        sequences = run.sequences
        self.tokens = -(-run.pass_tokens // sequences) * sequences
        self.streams = 1 if run.unified else sequences
        self._graph = Graph()
        self._kind = spec.text_type or spec.model_type

    def graph(self) -> Graph:
        spec = self.spec
        hidden = self._embedded()
        self.positions = graph_input(self.tokens)
        self._attention_inputs()
        self.outputs = graph_input(self.run.sequences)
        self.state_ids = graph_input(self.run.sequences)
        layers = built_layers(spec.layers)
        late = spec.model_type == "gpt_oss"  # rows are picked behind the last layer
        for index, layer in enumerate(layers):
            picks = index == len(layers) - 1 and not late
            hidden = self._layer(layer, hidden, picks)
        if late:
            hidden.output = True
            hidden = picked_rows(spec.hidden, self.outputs, hidden)
        normed = normalized(hidden)
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
        kind = self.spec.text_type or self.spec.model_type
        if kind.startswith("gemma3"):  # scaled where rows are tokens
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
        residual = middle = hidden
        behind = self._kind in NORMS_BEHIND
        if layer.mixers:
            normed = hidden if behind else normalized(hidden)
            attended = self._mixed(layer.mixers[0], normed)
            for mixer in layer.mixers[1:]:
                attended = binary("add", attended, self._mixed(mixer, normed))
            middle = self._joined(layer, attended, residual, picks)
        if layer.ffn is None:
            return middle
        normed = middle if behind else normalized(middle)
        if isinstance(layer.ffn, MoEFFN):
            out = expert_layer(self._graph, self.spec, layer.ffn, normed, self.on_device)
        else:
            out = dense_layer(layer.ffn, normed, self.spec.hidden)
        if layer.sandwich_norms or behind:
            out = normalized(out)
        return binary("add", out, middle)

    def _joined(self, layer: Layer, attended: Tensor, residual: Tensor, picks: bool) -> Tensor:
        """The residual stream behind attention; of the last layer the rows that are wanted."""
        if picks:
            attended = picked_rows(self.spec.hidden, self.outputs, attended)
            residual = picked_rows(self.spec.hidden, self.outputs, residual)
        if layer.sandwich_norms or self._kind in NORMS_BEHIND:
            attended = normalized(attended)
        return binary("add", attended, residual)

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

    def _attention(self, mixer: Attention, normed: Tensor) -> Tensor:
        tokens, expand = self.tokens, self._graph.expand
        sliding = self.run.slides(mixer, self.spec)
        key_ids, value_ids, mask, key_rotation, value_rotation = self.inputs[sliding]
        fused = self._fused(mixer, normed) if self._kind in FUSED else None

        def projected(*shape: int) -> Tensor:
            if fused is not None:
                return strided(fused, shape)
            return view(matmul(shape[0] * shape[1], normed), shape)

        queries = projected(mixer.head_dim, mixer.query_heads, tokens)
        queries = rotated(queries, self.positions, mixer)
        if self.spec.model_type.startswith("gemma"):
            queries = scaled(queries)
        if key_rotation is not None:
            queries = hadamard(queries, key_rotation)
        keys: Tensor | None = None
        values: Tensor | None = None
        if mixer.shares_kv_with is None:
            keys = projected(mixer.head_dim, mixer.kv_heads, tokens)
            keys = rotated(keys, self.positions, mixer)
            values = projected(mixer.value_dim, mixer.kv_heads, tokens)
            if key_rotation is not None:
                keys = hadamard(keys, key_rotation)
            if value_rotation is not None:
                values = hadamard(values, value_rotation)
        expand(queries)
        both = [t for t in (keys, values) if t is not None]
        for tensor in both if self.run.windows(self.spec) else both[::-1]:
            expand(tensor)
        for side, ids in ((keys, key_ids), (values, value_ids)):
            if side is not None:
                flat = view(side, (side.shape[0] * side.shape[1], tokens))
                expand(stored(flat, ids))
        out = self._attend(mixer, queries, mask)
        expand(out)
        if value_rotation is not None:
            out = hadamard(out, value_rotation)
        return matmul(self.spec.hidden, out)

    def _fused(self, mixer: Attention, normed: Tensor) -> Tensor:
        rows = (mixer.query_heads + mixer.kv_heads) * mixer.head_dim
        return matmul(rows + mixer.kv_heads * mixer.value_dim, normed)

    def _attend(self, mixer: Attention, queries: Tensor, mask: Tensor) -> Tensor:
        width, heads, streams = mixer.head_dim, mixer.query_heads, self.streams
        each = self.tokens // streams
        split = view(queries, (width, heads, each, streams))
        turned = strided(split, (width, each, heads, streams))
        if self.run.flash:
            shape = mixer.value_dim, heads, each, streams
            both = mixer.kv_heads * mixer.head_dim, mixer.kv_heads * mixer.value_dim
            out = self._flash(shape, turned, mask, both)
            return view(out, (mixer.value_dim * heads, self.tokens))
        scores = Tensor("mul_mat", (mask.shape[0], each, heads, streams), [turned])
        if mixer.softcap is not None:
            scores = scaled(activated(scaled(scores)))
        weights = Tensor("soft_max", scores.shape, [scores, mask])
        expanded = Tensor("mul_mat", (mixer.value_dim, each, heads, streams), [weights])
        turned = strided(expanded, (mixer.value_dim, heads, each, streams))
        return Tensor("cont", (mixer.value_dim * heads, self.tokens), [turned])
