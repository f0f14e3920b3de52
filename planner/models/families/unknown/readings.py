"""The two ends of every reading of an unknown decoder: the least and the most that it can be.

The low end has what no reading can lack: no norms, one KV head or one cache for all layers where
the file leaves that open, no mixer where layers may be of several kinds. The high end has all
there could be at once: a full cache in every layer beside a recurrent state, biases, positions,
gates, layers run again and again. Between them lies what is planned: the plainest reading.
"""

from math import ceil

from ....light_dataclass import dataclass
from ...spec import (
    FFN,
    Attention,
    DenseFFN,
    LatentAttention,
    Layer,
    Mixer,
    MoEFFN,
    Part,
    Reading,
    RecurrentState,
    Role,
)
from ...tensor_list import Tensors
from .openings import Openings
from .ranges import Sizes
from .tower_sizes import LARGEST_TOWER
from .unread import Meaning

LOW, READ, HIGH = -1, 0, 1


@dataclass(frozen=True)
class Build:
    """One reading under construction: its sizes, what is open, and which end it is.

    `windowed`: at the high end, layers keep their window instead of everything: the largest of
    what does not grow.
    """

    s: Sizes
    o: Openings
    end: int
    windowed: bool = False

    def reading(self) -> Reading:
        t = Tensors()
        layers = self.decoder(t)
        return Reading(layers, t.groups(), self.o.streams if self.end == HIGH else 1)

    def decoder(self, t: Tensors) -> tuple[Layer, ...]:
        """Add every tensor and describe every layer."""
        s, high = self.s, self.end == HIGH
        kinds = self._kinds()
        layers: list[Layer] = []
        built = ceil(s.layers / self.o.loops) if self.end == LOW else s.layers
        with t.scope("model."):
            t.embedding("embed_tokens", s.vocab, s.hidden)
            if high and s.positions:
                t.embedding("embed_positions", s.positions, s.hidden)
            for i, (window, sparse) in enumerate(kinds[:built]):
                with t.scope("layers.*."):
                    layers.append(self._layer(t, i, window, sparse))
            layers *= self.o.loops if high else 1
            if high:
                layers += self._further(t, kinds[-1])
                self._slack(t)
            if self.end == READ:
                t.norm("norm", s.hidden)
        may_tie = not s.tied if self.end == READ else s.tied is False
        if high or may_tie:
            t.head("lm_head", s.hidden, s.vocab)
        if high and Meaning.TOWER in self.o:
            with t.scope(part=Part.VISION):
                t.add("towers", (LARGEST_TOWER,), Role.OTHER)
        return tuple(layers)

    def _kinds(self) -> list[tuple[int | None, bool]]:
        """(window, whether it has experts) of every layer."""
        s = self.s
        sparse = s.experts.sparse.at(self.end) if s.experts else 0
        if s.experts and Meaning.PLACEMENT in self.o:
            sparse = 1 if self.end == LOW else s.layers
        window = self.o.window
        windows: list[int | None] = [window] * s.layers
        if s.kinds is not None:
            windows = [window if kind != "full_attention" else None for kind in s.kinds]
        elif (self.end == READ and s.window is None) or (self.end == HIGH and not self.windowed):
            windows = [None] * s.layers
        return [(w, i >= s.layers - sparse) for i, w in enumerate(windows)]

    def _layer(self, t: Tensors, i: int, window: int | None, sparse: bool) -> Layer:
        mixers = self._mixers(t, i, window)
        ffn = self._ffn(t, sparse)
        if self.end == READ:
            t.norm("input_layernorm", self.s.hidden)
            t.norm("post_attention_layernorm", self.s.hidden)
        return Layer(mixers, ffn)

    def _mixers(self, t: Tensors, i: int, window: int | None) -> tuple[Mixer, ...]:
        shared = Meaning.SHARING in self.o and i > 0 and self.s.latent is not None
        if self.end == LOW and (self.o.mixed or shared):
            return ()
        latent = self.s.latent is not None
        mixer: Mixer = self._latent(t) if latent else self._attention(t, i, window)
        if self.end == HIGH and self.o.state is not None:
            self._recurrent(t, self.o.state)
            return mixer, self.o.state
        if self.end == READ and self.o.recurrent and self.o.recurrent[i] and self.o.state:
            return (self.o.state,)
        return (mixer,)

    def _attention(self, t: Tensors, i: int, window: int | None) -> Attention:
        s = self.s
        kv, q_width = s.kv_heads.at(self.end), s.heads * s.head_dim
        shares = self.end == LOW and Meaning.SHARING in self.o and i > 0
        with t.scope("self_attn."):
            t.linear("q_proj", s.hidden, q_width)
            if not shares:
                t.linear("k_proj", s.hidden, kv * s.head_dim)
                t.linear("v_proj", s.hidden, kv * s.head_dim)
            t.linear("o_proj", q_width, s.hidden)
            self._beside(t, q_width)
        chunk = s.kinds is not None and s.kinds[i] == "chunked_attention"
        return Attention(
            s.heads,
            kv,
            s.head_dim,
            s.head_dim,
            window=None if chunk else window,
            local_chunk=window if chunk else None,
            shares_kv_with=0 if shares else None,
            indexer=self.o.indexer if self.end == HIGH else None,
        )

    def _latent(self, t: Tensors) -> LatentAttention:
        s, m = self.s, self.s.latent
        assert m is not None
        query = s.heads * (m.nope + m.rope)
        with t.scope("self_attn."):
            if m.query_rank is None:
                t.linear("q_proj", s.hidden, query)
            else:
                t.linear("q_a_proj", s.hidden, m.query_rank)
                t.linear("q_b_proj", m.query_rank, query)
            t.linear("kv_a_proj_with_mqa", s.hidden, m.kv_rank + m.rope)
            t.linear("kv_b_proj", m.kv_rank, s.heads * (m.nope + m.value))
            t.linear("o_proj", s.heads * m.value, s.hidden)
            if self.end == READ:
                t.norm("kv_a_layernorm", m.kv_rank)
            self._beside(t, s.heads * max(m.value, m.nope + m.rope))
        indexer = self.o.indexer if self.end == HIGH else None
        return LatentAttention(s.heads, m.query_rank, m.kv_rank, m.nope, m.rope, m.value, indexer)

    def _beside(self, t: Tensors, width: int) -> None:
        """A gate on attention's output, and an indexer, where they may be."""
        if self.end != HIGH:
            return
        s, indexer = self.s, self.o.indexer
        gated = Meaning.GATE in self.o or self.o.mixed
        if gated or s.experts is not None:  # newer families with experts gate and do not say so
            t.add("gate", (s.hidden * width,), Role.OTHER)
        if indexer is not None:
            own = indexer.heads * indexer.head_dim + indexer.head_dim + indexer.heads
            t.add("indexer", (s.hidden * own,), Role.OTHER)

    def _recurrent(self, t: Tensors, state: RecurrentState) -> None:
        """Six matrices between stream and inner width, and what makes states and steps."""
        inner = max(state.width // 2, state.heads * state.key_dim)
        small = 2 * inner * state.key_dim + state.conv + 8 * inner
        t.add("mixer", (6 * self.s.hidden * inner + small,), Role.OTHER)

    def _ffn(self, t: Tensors, sparse: bool) -> FFN | None:
        s = self.s
        if self.end == LOW and Meaning.BLOCKS in self.o:
            return None
        experts = s.experts
        double = 2 if self.end == HIGH and Meaning.FFN in self.o else 1
        if not sparse or experts is None:
            return self._dense(t, double * s.width.at(self.end), "mlp.")
        halves, shared = self._matrices(), experts.shared.at(self.end)
        shared += s.width.high if self.end == HIGH and (s.beside or double > 1) else 0
        with t.scope("mlp."):
            t.linear("gate", s.hidden, experts.number, role=Role.ROUTER)
            many = experts.number, halves * experts.width // 2 - experts.width, s.hidden
            t.add("experts.gate_up_proj", many, Role.EXPERT)
            t.add("experts.down_proj", (experts.number, s.hidden, experts.width), Role.EXPERT)
            if shared:
                self._dense(t, shared, "shared_experts.")
        gated = halves > 4
        return MoEFFN(experts.number, experts.top_k, experts.width, shared, gated, s.activation)

    def _matrices(self) -> int:
        """Halves of matrices an FFN has."""
        least = 3 if self.o.mixed else self.s.matrices
        return least if self.end == LOW else 6

    def _dense(self, t: Tensors, width: int, scope: str) -> DenseFFN:
        s, halves = self.s, self._matrices()
        with t.scope(scope):
            if halves == 6:
                t.linear("gate_proj", s.hidden, width)
                t.linear("up_proj", s.hidden, width)
                t.linear("down_proj", width, s.hidden)
            else:
                t.linear("all", s.hidden, halves * width // 2)
        return DenseFFN(width, halves == 6, s.activation)

    def _further(self, t: Tensors, kind: tuple[int | None, bool]) -> list[Layer]:
        """Layers that predict further tokens, with embeddings and heads of their own."""
        s, layers = self.s, []
        for _ in range(min(self.o.further, 64)):
            with t.scope("mtp.", part=Part.MTP):
                layers.append(self._layer(t, s.layers - 1, *kind))
                t.add("join", (2 * s.hidden * s.hidden + 2 * s.vocab * s.hidden,), Role.OTHER)
        return layers

    def _slack(self, t: Tensors) -> None:
        """Biases, norms, sinks and scales of every layer; the streams' mixing."""
        s, streams = self.s, self.o.streams
        each = 16 * s.hidden + 4 * s.heads * s.head_dim + 2 * s.width.high
        if s.experts is not None:
            each += s.experts.number * (2 * s.experts.width + s.hidden + 2)
        if s.latent is not None:
            each += s.latent.kv_rank + (s.latent.query_rank or 0)
        if streams > 1:
            each += 2 * (streams + 1) * streams * (streams + 2) * s.hidden
        t.add("slack", (s.layers * each + 4 * s.hidden,), Role.OTHER)
