"""Recurrent mixers in llama.cpp's graph: Mamba 1 and 2, gated delta nets, short convolutions.

Follows src/models/mamba-base.cpp, delta-net-base.cpp and lfm2.cpp of build 11434. States are read
from the cache before a layer's projections (build_rs), the scan's result holds the new states
behind its outputs, and both are copied back into the cache, which is not of this buffer.
"""

from collections.abc import Sequence

from ...models.spec import ModelSpec, RecurrentState
from .cache_bytes import convolved_channels, kept_inputs
from .graph_allocator import Graph, Tensor
from .graph_kinds import ONE_GATE_PRODUCT, REPEATED_KEYS, SCALED_STEPS
from .graph_nodes import activated, matmul, normalized, stored, strided, view
from .run_settings import RunSettings


class RecurrentMixers:
    """A part of the pass of model_graph.py, which sets what is named here."""

    spec: ModelSpec
    run: RunSettings
    tokens: int
    state_ids: Tensor
    _graph: Graph
    _kind: str

    def _recurrent(self, mixer: RecurrentState, normed: Tensor) -> Tensor:
        match mixer.kind:
            case "short_conv":
                return self._short_convolution(mixer, normed)
            case "mamba1":
                return self._mamba1(mixer, normed)
            case "mamba2":
                return self._mamba2(mixer, normed)
            case "gated_delta":
                return self._gated_delta(mixer, normed)
        # Roughly a wide projection, its convolution and the scan's output: no run is behind it.
        wide = matmul(mixer.width + mixer.heads * (2 * mixer.key_dim + mixer.value_dim), normed)
        convolved = Tensor("ssm_conv", wide.shape, [wide])
        scanned = Tensor("ssm_scan", (mixer.width, self.tokens), [convolved, wide])
        return matmul(self.spec.hidden, scanned)

    @property
    def _each(self) -> int:
        """Tokens of each sequence."""
        return self.tokens // self.run.sequences

    def _states(self, width: int) -> Tensor:
        """The sequences' states, gathered from the cache before anything else of the layer."""
        gathered = Tensor("get_rows", (width, self.run.sequences), [self.state_ids])
        self._graph.expand(gathered)
        return gathered

    def _scanned(self, shape: Sequence[int], state: int, sources: Sequence[Tensor]) -> Tensor:
        """A scan that reads states where they lie; its result ends with the new ones."""
        size = self.tokens * shape[0] * shape[1] + state * self.run.sequences
        scan = Tensor("ssm_scan", (size,), [*sources, self.state_ids])
        self._graph.expand(scan)
        if self.run.sequences > 1:  # room for states of sequences that a pass leaves out
            rest = Tensor("get_rows", (state, self.run.sequences - 1), [self.state_ids])
            self._graph.expand(stored(rest))
        self._graph.expand(stored(strided(scan, (state, self.run.sequences))))
        return strided(scan, (*shape, self._each, self.run.sequences))

    def _convolved(self, state: Tensor, tokens: Tensor, channels: int, biased: bool) -> Tensor:
        """The convolution over the kept inputs and these; its tail is kept. `tokens`: transposed"""
        sequences, kept = self.run.sequences, state.shape[0] // channels
        before = view(state, (kept, channels, sequences))
        joined = Tensor("concat", (kept + self._each, channels, sequences), [before, tokens])
        self._graph.expand(stored(strided(joined, (kept, channels, sequences))))
        out = Tensor("ssm_conv", (channels, self._each, sequences), [joined])
        return Tensor("add", out.shape, [out]) if biased else out

    def _short_convolution(self, mixer: RecurrentState, normed: Tensor) -> Tensor:
        """LFM2: three parts b, c, x; c * conv(state, b * x)."""
        hidden, sequences, each = self.spec.hidden, self.run.sequences, self._each
        state = self._states(kept_inputs(mixer))
        parts = matmul(3 * hidden, view(normed, (hidden, each, sequences)))
        b, c, x = (strided(parts, (hidden, each, sequences)) for _ in range(3))
        product = Tensor("mul", b.shape, [b, x])
        turned = strided(product, (each, hidden, sequences))
        convolved = self._convolved(state, turned, hidden, biased=False)
        out = matmul(hidden, Tensor("mul", c.shape, [c, convolved]))
        return view(out, (hidden, self.tokens))

    def _mamba1(self, mixer: RecurrentState, normed: Tensor) -> Tensor:
        inner, width, sequences, each = (
            mixer.value_dim, mixer.key_dim, self.run.sequences, self._each
        )  # fmt: skip
        state = self._states(kept_inputs(mixer))
        both = matmul(2 * inner, view(normed, (self.spec.hidden, each, sequences)))
        x, z = (strided(both, (inner, each, sequences)) for _ in range(2))
        x = activated(self._convolved(state, strided(x, (each, inner, sequences)), inner, True))
        rank = self._step_rank(width)
        step_b_c = matmul(rank + 2 * width, x)
        step = strided(step_b_c, (rank, each, sequences))
        b, c = (strided(step_b_c, (width, 1, each, sequences)) for _ in range(2))
        if self._kind in SCALED_STEPS:
            step, b, c = (Tensor("rms_norm", part.shape, [part]) for part in (step, b, c))
        elif any(t.name.endswith("dt_layernorm.weight") for t in self.spec.tensors):
            step, b, c = (normalized(part) for part in (step, b, c))
        else:
            step = Tensor("cont", step.shape, [step])
        step = matmul(inner, step)
        step = Tensor("add", step.shape, [step])
        heads = view(x, (1, inner, each, sequences))
        y = self._scanned((1, inner), inner * width, [heads, step, b, c])
        y = view(y, (inner, each, sequences))
        y = Tensor("add", y.shape, [y, Tensor("mul", x.shape, [x])])
        y = Tensor("glu", y.shape, [Tensor("cont", z.shape, [z]), y])
        return view(matmul(self.spec.hidden, y), (self.spec.hidden, self.tokens))

    def _step_rank(self, width: int) -> int:
        rows = (t.shape[0] for t in self.spec.tensors if t.name.endswith("x_proj.weight"))
        return next(rows, 2 * width + -(-self.spec.hidden // 16)) - 2 * width

    def _mamba2(self, mixer: RecurrentState, normed: Tensor) -> Tensor:
        heads, dim, width = mixer.heads, mixer.value_dim, mixer.key_dim
        sequences, each, inner = self.run.sequences, self._each, heads * dim
        channels = convolved_channels(mixer)
        groups = max(1, (channels - inner) // (2 * width))
        state = self._states(kept_inputs(mixer))
        rows = inner + channels + heads
        wide = view(matmul(rows, normed), (rows, each, sequences))
        z = strided(wide, (dim, heads, each, sequences))
        turned = strided(wide, (each, channels, sequences))
        step = strided(wide, (heads, each, sequences))
        mixed = activated(self._convolved(state, turned, channels, True))
        x = strided(mixed, (dim, heads, each, sequences))
        b, c = (strided(mixed, (width, groups, each, sequences)) for _ in range(2))
        step = Tensor("add", step.shape, [Tensor("cont", step.shape, [step])])
        y = self._scanned((dim, heads), inner * width, [x, step, b, c])
        y = Tensor("add", y.shape, [y, Tensor("mul", x.shape, [x])])
        y = Tensor("glu", y.shape, [Tensor("cont", z.shape, [z]), y])
        norms = ("mamba.norm.weight", "mixer.norm.weight")
        if any(t.name.endswith(norms) for t in self.spec.tensors):
            y = normalized(view(y, (inner // groups, groups, each, sequences)))
        return matmul(self.spec.hidden, view(y, (inner, self.tokens)))

    def _gated_delta(self, mixer: RecurrentState, normed: Tensor) -> Tensor:
        """Qwen3-Next and 3.5. Heads of keys are as wide as those of values."""
        heads, dim, key_dim = mixer.heads, mixer.value_dim, mixer.key_dim
        sequences, each, values = self.run.sequences, self._each, heads * dim
        channels = convolved_channels(mixer)
        key_heads = (channels - values) // (2 * key_dim)
        mixed = view(matmul(channels, normed), (channels, each, sequences))
        z = matmul(values, normed)
        beta, gate = self._gates(heads, normed)
        state = self._states(kept_inputs(mixer))
        turned = strided(mixed, (each, channels, sequences))
        convolved = self._convolved(state, turned, channels, False)
        memory = view(self._states(mixer.state), (dim, dim, heads, sequences))
        convolved = activated(convolved)
        shape = key_dim, key_heads, each, sequences
        q, k = (self._unit(strided(convolved, shape)) for _ in range(2))
        if self._kind in REPEATED_KEYS and key_heads != heads:
            repeated = key_dim, heads // key_heads, key_heads, self.tokens
            q, k = (Tensor("repeat", repeated, [side]) for side in (q, k))
        v = strided(convolved, (dim, heads, each, sequences))
        size = self.tokens * values + mixer.state * sequences
        scan = Tensor("gated_delta_net", (size,), [q, k, v, gate, beta, memory])
        self._graph.expand(stored(strided(scan, (mixer.state, sequences))))
        out = normalized(strided(scan, (dim, heads, each, sequences)))
        out = Tensor("mul", out.shape, [out, activated(view(z, out.shape))])
        return view(matmul(self.spec.hidden, view(out, (values, each, sequences))), normed.shape)

    def _unit(self, heads: Tensor) -> Tensor:
        """Each head's vector at length one."""
        normed = Tensor("rms_norm", (*heads.shape,), [heads])
        return Tensor("scale", normed.shape, [normed])

    def _gates(self, heads: int, normed: Tensor) -> tuple[Tensor, Tensor]:
        """How strongly a token is written, and how much of the state is kept."""
        shape = heads, self._each, self.run.sequences
        if self._kind in ONE_GATE_PRODUCT:
            both = matmul(2 * heads, normed)
            beta = activated(Tensor("cont", shape, [strided(both, shape)]))
            alpha = Tensor("cont", shape, [strided(both, shape)])
        else:
            beta = activated(view(matmul(heads, normed), (1, *shape)))
            alpha = view(matmul(heads, normed), shape)
        gate = Tensor("mul", shape, [activated(Tensor("add", shape, [alpha]))])
        return view(beta, (1, *shape)), view(gate, (1, *shape))
