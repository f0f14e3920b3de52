"""What Gemma 4 adds to llama.cpp's graph: inputs of each layer, and experts beside a dense branch.

Follows src/models/gemma4.cpp of build 11434. A second table gives every layer a small vector of
each token (E2B, E4B); a layer gates it, projects it up and adds it to the stream. The vectors of
all layers are alive from the first layer to the last.
"""

from ...models.spec import Attention, DenseFFN, MoEFFN
from .feed_forward_graph import dense_layer, expert_layer
from .graph_allocator import Tensor
from .graph_kinds import GEMMA4
from .graph_nodes import activated, binary, graph_input, matmul, normalized, scaled, strided, view
from .other_mixers import OtherMixers


class Gemma4(OtherMixers):
    """A part of the pass of model_graph.py."""

    _selected: Tensor | None = None
    _embedding: Tensor | None = None
    _per_layer: Tensor | None = None

    def _select_layer_inputs(self) -> None:
        """Rows of the second table; looked up on the other side where there is a device."""
        width = self._layer_inputs
        if not width or self._kind not in GEMMA4:
            return
        if self.on_device:
            self._selected = graph_input(width, self.tokens)
        else:
            self._selected = Tensor("get_rows", (width, self.tokens), [graph_input(self.tokens)])
        self._graph.expand(self._selected)

    @property
    def _layer_inputs(self) -> int:
        """Channels of all layers' vectors together; 0 where there are none."""
        name = "per_layer_model_projection.weight"
        return next((t.shape[0] for t in self.spec.tensors if t.name.endswith(name)), 0)

    def _with_layer_input(self, hidden: Tensor) -> Tensor:
        if self._selected is None:
            return hidden
        each = self._layer_inputs // len(self.spec.layers)
        gate = activated(matmul(each, hidden))
        mine = strided(self._all_layer_inputs(each), (each, self.tokens))
        out = normalized(matmul(self.spec.hidden, Tensor("mul", gate.shape, [gate, mine])))
        return binary("add", hidden, out)

    def _all_layer_inputs(self, each: int) -> Tensor:
        if self._per_layer is None:
            assert self._selected is not None
            assert self._embedding is not None
            shape = each, len(self.spec.layers), self.tokens
            projected = scaled(matmul(self._layer_inputs, self._embedding))
            projected = normalized(view(projected, shape))
            both = scaled(binary("add", projected, view(scaled(self._selected), shape)))
            turned = strided(both, (each, self.tokens, shape[1]))
            self._per_layer = Tensor("cont", turned.shape, [turned])
        return self._per_layer

    def _keys_are_values(self, mixer: Attention) -> bool:
        """Whether a layer's values are its keys' product, normed on their own."""
        rows = mixer.kv_heads * mixer.value_dim
        named = [t for t in self.spec.tensors if t.name.endswith("v_proj.weight")]
        return self._kind in GEMMA4 and all(t.shape[0] != rows for t in named)

    def _experts_beside_dense(self, ffn: MoEFFN, middle: Tensor) -> Tensor:
        """Both branches have norms of their own; the router reads the stream itself."""
        dense = dense_layer(DenseFFN(ffn.shared_width), normalized(middle), self.spec.hidden)
        dense = normalized(dense)
        read = Tensor("rms_norm", middle.shape, [middle])
        logits = matmul(ffn.experts, Tensor("mul", read.shape, [scaled(read)]))
        routed = expert_layer(
            self._graph, self.spec, ffn, normalized(middle), self.on_device, logits
        )
        return binary("add", dense, normalized(routed))
