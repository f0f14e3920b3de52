"""Latents in llama.cpp's graph, and what flash attention takes on a device."""

from collections.abc import Sequence

from ...models.spec import LatentAttention
from .graph_allocator import Tensor
from .graph_nodes import matmul, normalized, stored, strided, view
from .recurrent_graph import RecurrentMixers

Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""Indices of keys and of values, the mask, and the rotations of keys and of values."""


class OtherMixers(RecurrentMixers):
    """A part of the pass of model_graph.py, which sets what is named here."""

    on_device: bool
    streams: int
    positions: Tensor
    inputs: dict[bool, Inputs]

    def _latent(self, mixer: LatentAttention, normed: Tensor) -> Tensor:
        """MLA with the absorbed matrices: one wide KV head, whose latent is the value too."""
        tokens, expand, heads = self.tokens, self._graph.expand, mixer.query_heads
        key_ids, _, mask, _, _ = self.inputs[False]  # a latent is not rotated
        width, rank, rope = mixer.nope_dim + mixer.rope_dim, mixer.kv_rank, mixer.rope_dim
        queries = normed
        if mixer.query_rank is not None:
            queries = normalized(matmul(mixer.query_rank, normed))
        queries = view(matmul(width * heads, queries), (width, heads, tokens))
        both = matmul(rank + rope, normed)
        turned_key = strided(both, (rope, 1, tokens))
        turned_key = Tensor("rope", turned_key.shape, [turned_key, self.positions])
        latent = normalized(strided(both, (rank, tokens)))
        turned = strided(queries, (rope, heads, tokens))
        turned = Tensor("rope", turned.shape, [turned, self.positions])
        plain = strided(
            strided(queries, (mixer.nope_dim, heads, tokens)), (mixer.nope_dim, tokens, heads)
        )
        absorbed = strided(matmul(rank, plain), (rank, heads, tokens))
        asked = Tensor("concat", (rank + rope, heads, tokens), [absorbed, turned])
        latent = view(latent, (rank, 1, tokens))
        keys = Tensor("concat", (rank + rope, 1, tokens), [latent, turned_key])
        expand(asked)
        expand(latent)
        expand(keys)
        expand(stored(view(keys, (rank + rope, tokens)), key_ids))
        out = self._attend_latent(mixer, asked, mask)
        expand(out)
        return matmul(self.spec.hidden, out)

    def _attend_latent(self, mixer: LatentAttention, queries: Tensor, mask: Tensor) -> Tensor:
        heads, rank, streams = mixer.query_heads, mixer.kv_rank, self.streams
        each = self.tokens // streams
        split = view(queries, (rank + mixer.rope_dim, heads, each, streams))
        turned = strided(split, (rank + mixer.rope_dim, each, heads, streams))
        wide = mixer.value_dim * heads, self.tokens
        if self.run.flash:
            shape, width = (rank, heads, each, streams), rank + mixer.rope_dim
            attended = self._flash(shape, turned, mask, (width, 0))
            attended = strided(attended, (rank, each, heads, streams))
        else:
            scores = Tensor("mul_mat", (mask.shape[0], each, heads, streams), [turned])
            weights = Tensor("soft_max", scores.shape, [scores, mask])
            # The latent is stored by rows: V is a transposed copy of it.
            values = Tensor("cont", (mask.shape[0], rank, 1, streams), item=2)
            attended = Tensor("mul_mat", (rank, each, heads, streams), [values, weights])
        out = matmul(mixer.value_dim, attended)
        out = strided(out, (mixer.value_dim, heads, each, streams))
        return view(Tensor("cont", (mixer.value_dim, heads, each, streams), [out]), wide)

    def _flash(
        self, shape: Sequence[int], queries: Tensor, mask: Tensor, widths: tuple[int, int]
    ) -> Tensor:
        """Flash attention; on a device with room for 16-bit copies of keys and values of `widths`
        channels a cell (values 0: they are the keys)."""
        out = Tensor("flash_attn", shape, [queries, mask])
        if self.on_device:
            cells = mask.shape[0] * self.streams
            for width, kept in zip(widths, (self.run.keys, self.run.values), strict=True):
                if kept != "f16" and width:
                    out.nbytes = -(-out.nbytes // 128) * 128 + 2 * cells * width
        return out
