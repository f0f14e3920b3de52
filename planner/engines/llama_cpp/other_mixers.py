"""Mixers other than plain attention in llama.cpp's graph: latents and recurrent states."""

from collections.abc import Sequence

from ...models.spec import LatentAttention, ModelSpec, RecurrentState
from .cache_bytes import kept_inputs
from .graph_allocator import Graph, Tensor
from .graph_nodes import matmul, normalized, stored, strided, view
from .run_settings import RunSettings

Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""Indices of keys and of values, the mask, and the rotations of keys and of values."""


class OtherMixers:
    """A part of the pass of model_graph.py, which sets what is named here."""

    spec: ModelSpec
    run: RunSettings
    on_device: bool
    tokens: int
    streams: int
    positions: Tensor
    state_ids: Tensor
    inputs: dict[bool, Inputs]
    _graph: Graph

    def _recurrent(self, mixer: RecurrentState, normed: Tensor) -> Tensor:
        """Short convolutions as they are; else roughly a wide projection, its convolution and the
        scan's output, which no run of llama.cpp was held against."""
        if mixer.kind == "short_conv":
            return self._short_convolution(mixer, normed)
        wide = matmul(mixer.width + mixer.heads * (2 * mixer.key_dim + mixer.value_dim), normed)
        convolved = Tensor("ssm_conv", wide.shape, [wide])
        scanned = Tensor("ssm_scan", (mixer.width, self.tokens), [convolved, wide])
        return matmul(self.spec.hidden, scanned)

    def _short_convolution(self, mixer: RecurrentState, normed: Tensor) -> Tensor:
        """LFM2: three parts b, c, x; c * conv(state, b * x)."""
        hidden, sequences = self.spec.hidden, self.run.sequences
        each = self.tokens // sequences
        kept = kept_inputs(mixer) // hidden
        parts = matmul(3 * hidden, view(normed, (hidden, each, sequences)))
        b, c, x = (strided(parts, (hidden, each, sequences)) for _ in range(3))
        product = Tensor("mul", b.shape, [b, x])
        turned = strided(product, (each, hidden, sequences))
        state = Tensor("get_rows", (kept * hidden, sequences), [self.state_ids])
        state = view(state, (kept, hidden, sequences))
        joined = Tensor("concat", (kept + each, hidden, sequences), [state, turned])
        tail = stored(strided(joined, (kept, hidden, sequences)))
        self._graph.expand(tail)
        convolved = Tensor("ssm_conv", (hidden, each, sequences), [joined])
        out = matmul(hidden, Tensor("mul", c.shape, [c, convolved]))
        return view(out, (hidden, self.tokens))

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
