"""Attention in llama.cpp's graph: projections, rotations, cache rows, scores or flash attention.

Follows build_qkv and build_attn of src/llama-graph.cpp (build 11434).
"""

from ...models.spec import Attention
from .gemma4_graph import Gemma4
from .graph_allocator import Tensor
from .graph_kinds import FUSED, GEMMA4, NO_ROTATION, NORM_FIRST
from .graph_nodes import (
    activated,
    binary,
    hadamard,
    matmul,
    rotated,
    scaled,
    stored,
    strided,
    view,
)


class PlainAttention(Gemma4):
    """A part of the pass of model_graph.py."""

    def _attention(self, mixer: Attention, normed: Tensor) -> Tensor:
        tokens, expand = self.tokens, self._graph.expand
        sliding = self.run.slides(mixer, self.spec)
        key_ids, value_ids, mask, key_rotation, value_rotation = self.inputs[sliding]
        fused = self._fused(mixer, normed) if self._kind in FUSED else None

        def projected(*shape: int) -> Tensor:
            if fused is not None:
                return strided(fused, shape)
            return view(matmul(shape[0] * shape[1], normed), shape)

        gated = mixer.output_gate and self._kind in NORM_FIRST  # in the product of the queries
        if gated:
            wide = matmul(2 * mixer.head_dim * mixer.query_heads, normed)
            queries = strided(wide, (mixer.head_dim, mixer.query_heads, tokens))
        else:
            queries = projected(mixer.head_dim, mixer.query_heads, tokens)
        turns = self._kind not in NO_ROTATION
        queries = rotated(queries, self.positions, mixer, turns)
        if self.spec.model_type.startswith("gemma") and self._kind not in GEMMA4:
            queries = scaled(queries)
        if key_rotation is not None:
            queries = hadamard(queries, key_rotation)
        keys: Tensor | None = None
        values: Tensor | None = None
        if mixer.shares_kv_with is None:
            plain = keys = projected(mixer.head_dim, mixer.kv_heads, tokens)
            keys = rotated(keys, self.positions, mixer, turns)
            if not self._keys_are_values(mixer):
                plain = projected(mixer.value_dim, mixer.kv_heads, tokens)
            values = plain
            if self._kind in GEMMA4:
                values = Tensor("rms_norm", plain.shape, [plain])
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
        if gated:
            gate = strided(wide, (mixer.head_dim, mixer.query_heads, tokens))
            gate = activated(Tensor("cont", out.shape, [gate]))
            out = binary("mul", out, gate)
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
