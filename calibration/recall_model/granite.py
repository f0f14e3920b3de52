"""Small models in Granite 4's two shapes, hybrid and of attention alone, and their forward pass for
training.

    python -m kvpareto.calibration.recall_model.train --out DIR --shape granite-hybrid --minutes 4

The recall model's texts and curriculum train both (train.py), so that what a quantized cache costs
a hybrid can be measured beside what it costs a model of attention alone. Layers, multipliers and
positions are those of granite-4.0-h-micro (Mamba-2, attention without positions in few layers) and
granite-4.0-micro (attention with RoPE); widths are the recall model's.

Mamba-2 in chunks is the state space dual form (Dao and Gu, arXiv:2405.21060, section 6): within a
chunk of `l` tokens a masked product, between chunks a recurrence over their states,

    y_t = sum_{s <= t} C_t . B_s exp(a_t - a_s) x_s + C_t . h exp(a_t),   a = cumsum(A dt)

What works token by token or chunk by chunk is compiled once, for a fixed number of tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM

SCAN = 64
"""Tokens of a chunk of the scan; sequences are multiples of it."""
MIXERS = {
    "granite-hybrid": ("mamba", "mamba", "attention", "mamba") * 2,
    "granite-dense": ("attention",) * 8,
}


def shape(vocabulary: int, kind: str, **changes: Any) -> GraniteMoeHybridConfig:
    """The config of a kind of MIXERS; `changes` make it smaller in tests."""
    mixers = MIXERS[kind]
    sizes = {
        "hidden_size": 256, "shared_intermediate_size": 640, "intermediate_size": 640,
        "num_attention_heads": 4, "num_key_value_heads": 2, "mamba_n_heads": 8,
        "mamba_d_head": 64, "mamba_d_state": 64,
    }  # fmt: skip
    dense = "mamba" not in mixers
    return GraniteMoeHybridConfig(
        vocab_size=vocabulary,
        num_hidden_layers=len(mixers),
        layer_types=list(mixers),
        position_embedding_type="rope" if dense else None,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        max_position_embeddings=16384,
        num_local_experts=0,
        num_experts_per_tok=0,
        mamba_n_groups=1,
        mamba_chunk_size=SCAN,
        mamba_expand=2,
        embedding_multiplier=12.0,
        attention_multiplier=0.015625,
        residual_multiplier=0.22,
        logits_scaling=8.0,
        initializer_range=0.1,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        dtype="bfloat16",
        **{**sizes, **changes},
    )


def begin(model: GraniteMoeHybridForCausalLM) -> None:
    """Mamba's own start, in place: time steps of 0.001 to 0.1, which transformers sets to one."""
    for layer in model.model.layers:
        if layer.mamba is not None:
            low, high = torch.tensor([1e-3, 1e-1]).log()
            steps = torch.exp(low + (high - low) * torch.rand(layer.mamba.num_heads))
            with torch.no_grad():
                layer.mamba.dt_bias.copy_(steps + torch.log(-torch.expm1(-steps)))


class GraniteTrainable(nn.Module):
    """`model`, to be trained on batches of a fixed number of tokens, as network.Trainable is.

    Weights are float32, the arithmetic is in `dtype`, states and decays are float32.
    """

    def __init__(
        self,
        model: GraniteMoeHybridForCausalLM,
        *,
        dtype: torch.dtype = torch.bfloat16,
        compiled: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        wrap: Callable[[Any], Any] = torch.compile if compiled else (lambda function: function)
        self._normed, self._fed, self._loss = wrap(_normed), wrap(_fed), wrap(_loss)
        self._within, self._out = wrap(_within), wrap(_out)
        config: Any = model.config
        self.head_dim = config.hidden_size // config.num_attention_heads
        theta = config.rope_parameters["rope_theta"]
        powers = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        places = torch.arange(config.max_position_embeddings, dtype=torch.float32)
        self.angles: Tensor
        self.register_buffer("angles", torch.outer(places, theta**-powers))

    def forward(self, ids: Tensor, places: Tensor, labels: Tensor) -> Tensor:
        """What predicting costs: arguments and result are network.Trainable's."""
        config: Any = self.model.config
        core: Any = self.model.model
        x = F.embedding(ids.reshape(-1), core.embed_tokens.weight) * config.embedding_multiplier
        for layer in core.layers:
            eps = layer.input_layernorm.variance_epsilon
            y = self._normed(x, layer.input_layernorm.weight, eps, self.dtype)
            mix = self._attention if layer.mamba is None else self._mamba
            mixed = mix(layer.self_attn if layer.mamba is None else layer.mamba, y, ids.shape)
            x = self._fed(
                x, mixed, layer.post_attention_layernorm.weight,
                layer.shared_mlp.input_linear.weight, layer.shared_mlp.output_linear.weight,
                config.residual_multiplier, eps, self.dtype,
            )  # fmt: skip
        return self._loss(
            x[places], core.norm.weight, core.embed_tokens.weight, labels,
            config.logits_scaling, core.norm.variance_epsilon, self.dtype,
        )  # fmt: skip

    def _attention(self, a: Any, y: Tensor, size: torch.Size) -> Tensor:
        batch, length = size
        parts = [self._linear(y, part.weight) for part in (a.q_proj, a.k_proj, a.v_proj)]
        heads = (part.view(batch, length, -1, self.head_dim).transpose(1, 2) for part in parts)
        q, k, v = heads
        if self.model.model.rotary_emb is not None:
            angles = self.angles[:length]
            cos, sin = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
            q, k = _turned(q, cos, sin), _turned(k, cos, sin)
        mixed = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=a.scaling, enable_gqa=True
        )
        return self._linear(mixed.transpose(1, 2).reshape(batch * length, -1), a.o_proj.weight)

    def _mamba(self, m: Any, y: Tensor, size: torch.Size) -> Tensor:
        batch, length = size
        begins = torch.arange(batch * length, device=y.device) % length
        local, states, carried, decays, gate = self._within(
            self._linear(y, m.in_proj.weight), begins, m.conv1d.weight, m.conv1d.bias,
            m.A_log, m.dt_bias, m.D, m.intermediate_size, m.ssm_state_size, m.head_dim,
        )  # fmt: skip
        before = _before_chunks(states, decays[:, -1], batch)
        norm = m.norm
        joined = self._out(
            local, before, carried, decays, gate, norm.weight, norm.variance_epsilon, self.dtype
        )
        return self._linear(joined, m.out_proj.weight)

    def _linear(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight.to(self.dtype))


def _normed(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight).to(dtype)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE of [B, H, T, D]: channel i of a head turns with channel i + D / 2."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def _within(
    projected: Tensor,
    begins: Tensor,
    conv: Tensor,
    bias: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
    skip: Tensor,
    inner: int,
    state: int,
    dim: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All of Mamba-2 that a chunk of SCAN tokens knows by itself.

    `projected` [N, 2 inner + 2 state + H] holds gate, x, B, C and time steps; `begins` int64 [N]
    is a token's place in its sequence, whose convolution of 4 sees nothing before it. Returns what
    tokens get from their own chunk [n, l, H, D], the states that chunks add [n, H, D, state],
    C [n, l, state], sums of decay [n, l, H], and the gate [N, inner].
    """
    gate, mixed, dt = projected.split([inner, inner + 2 * state, dt_bias.shape[0]], -1)
    width = conv.shape[-1]
    total = bias
    for back in range(width):
        shifted = F.pad(mixed, (0, 0, back, 0))[: mixed.shape[0]]
        seen = (begins >= back)[:, None]
        total = total + torch.where(seen, shifted, 0.0) * conv[:, 0, width - 1 - back]
    x, b, c = F.silu(total).split([inner, state, state], -1)
    dtype = projected.dtype
    dt = F.softplus(dt.float() + dt_bias)
    heads = dt.shape[-1]
    x = x.view(-1, SCAN, heads, dim)
    b, c = b.view(-1, SCAN, state).to(dtype), c.view(-1, SCAN, state).to(dtype)
    steps = dt.view(-1, SCAN, heads)
    sums = (-torch.exp(a_log.float()) * steps).cumsum(1)
    gaps = (sums[:, :, None] - sums[:, None]).permute(0, 3, 1, 2)  # [n, H, l, s]
    causal = torch.ones(SCAN, SCAN, dtype=torch.bool, device=x.device).tril()
    decay = torch.exp(gaps.masked_fill(~causal, float("-inf")))
    weights = ((c @ b.transpose(1, 2))[:, None] * decay).to(dtype)
    stepped = (x * steps[..., None]).to(dtype)
    local = (weights @ stepped.transpose(1, 2)).transpose(1, 2) + skip[:, None] * x
    left = torch.exp(sums[:, -1:] - sums)[..., None] * stepped
    states = left.to(dtype).permute(0, 2, 3, 1) @ b[:, None]
    return local, states.float(), c, sums, gate


def _before_chunks(states: Tensor, decays: Tensor, batch: int) -> Tensor:
    """The state that each chunk begins with, float32 [n, H, D, state]: what chunks before it in its
    sequence added, each decayed by the chunks between. `decays` [n, H]: logarithms, a chunk's."""
    count = states.shape[0] // batch
    sums = decays.view(batch, count, -1).cumsum(1).transpose(1, 2)  # [B, H, c]
    before = F.pad(sums, (1, 0))[..., :-1]
    gaps = before[..., :, None] - sums[..., None, :]
    earlier = torch.ones(count, count, dtype=torch.bool, device=states.device).tril(-1)
    decay = torch.exp(gaps.masked_fill(~earlier, float("-inf")))
    added = states.view(batch, count, *states.shape[1:]).transpose(1, 2).flatten(3)
    return (decay @ added).transpose(1, 2).reshape(states.shape)


def _out(
    local: Tensor,
    before: Tensor,
    carried: Tensor,
    sums: Tensor,
    gate: Tensor,
    norm: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """What chunks before add, gated and normalized: [N, inner]."""
    seen = (carried[:, None] @ before.to(dtype).transpose(2, 3)).transpose(1, 2)
    y = (local + seen * torch.exp(sums)[..., None]).reshape(gate.shape).float()
    return _normed(y * F.silu(gate.float()), norm, eps, dtype)


def _fed(
    x: Tensor,
    mixed: Tensor,
    norm: Tensor,
    joined: Tensor,
    down: Tensor,
    share: float,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """The mixer's output and the feed-forward part, added to the stream float32 [N, hidden]."""
    x = x + mixed * share
    gate, up = F.linear(_normed(x, norm, eps, dtype), joined.to(dtype)).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, down.to(dtype)) * share


def _loss(
    x: Tensor,
    norm: Tensor,
    words: Tensor,
    labels: Tensor,
    scaling: float,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    logits = F.linear(_normed(x, norm, eps, dtype), words.to(dtype)).float() / scaling
    nats = F.cross_entropy(logits, labels, reduction="none")
    return torch.stack([nats, (logits.argmax(-1) == labels).float().detach()])
