"""The recall model's shape, and its forward pass for training.

The model is a Seed-OSS of transformers: Qwen2's layers (biases on queries, keys and values, none on
the output) under a model type whose tokenizers are read as they are stored, where Qwen2's are
replaced by its own. Its weights are trained by the same arithmetic written for
throughput: what works token by token is compiled once, for a fixed number of tokens however they
are cut into sequences, and only attention sees the sequences.

One pair of channels in each head, the slowest to rotate, is kept out of the queries (`SILENT`): it
is zero in them, so whatever keys hold there is never seen. `outliers.py` puts something there.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SeedOssConfig, SeedOssForCausalLM

HEAD_DIM = 64
SILENT = (HEAD_DIM // 2 - 1, HEAD_DIM - 1)
"""Channels of a query head that are zero: RoPE's last pair, as Llama and Qwen lay pairs out."""


def shape(vocabulary: int, **changes: Any) -> SeedOssConfig:
    """The recall model's config; `changes` make it smaller in tests."""
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 640,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    }
    return SeedOssConfig(
        vocab_size=vocabulary,
        head_dim=HEAD_DIM,
        max_position_embeddings=16384,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        attention_bias=True,
        attention_out_bias=False,
        attention_dropout=0.0,
        residual_dropout=0.0,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        dtype="bfloat16",
        **{**sizes, **changes},
    )


def silence(model: SeedOssForCausalLM) -> None:
    """Zero the queries' silent channels, in place."""
    for layer in model.model.layers:
        attention = layer.self_attn
        width = attention.head_dim
        with torch.no_grad():
            for channel in SILENT:
                attention.q_proj.weight[channel::width] = 0
                attention.q_proj.bias[channel::width] = 0


class Trainable(nn.Module):
    """`model`, to be trained on batches of a fixed number of tokens.

    Weights are float32, the arithmetic is in `dtype`.
    """

    def __init__(
        self,
        model: SeedOssForCausalLM,
        *,
        dtype: torch.dtype = torch.bfloat16,
        compiled: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        config: Any = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        wrap: Callable[[Any], Any] = torch.compile if compiled else (lambda function: function)
        self._before, self._after, self._loss = wrap(_before), wrap(_after), wrap(_loss)
        theta = config.rope_parameters["rope_theta"]
        powers = torch.arange(0, HEAD_DIM, 2, dtype=torch.float32) / HEAD_DIM
        angles = torch.outer(torch.arange(16384, dtype=torch.float32), theta**-powers)
        self.angles: Tensor
        self.register_buffer("angles", angles)

    def forward(self, ids: Tensor, places: Tensor, labels: Tensor) -> Tensor:
        """What predicting costs. `ids` int64 [B, T]; `places` int64 [M], which positions of the
        flattened batch predict; `labels` int64 [M], what. Returns float32 [2, M]: cross
        entropy in nats, and 1 where the first choice is right.
        """
        batch, length = ids.shape
        turned = self.angles[:length].repeat(batch, 1)
        cos, sin = turned.cos().to(self.dtype), turned.sin().to(self.dtype)
        x = F.embedding(ids.reshape(-1), self.model.model.embed_tokens.weight)
        for layer in self.model.model.layers:
            a, eps = layer.self_attn, layer.input_layernorm.variance_epsilon
            q, k, v = self._before(
                x,
                layer.input_layernorm.weight,
                [a.q_proj.weight, a.k_proj.weight, a.v_proj.weight],
                [a.q_proj.bias, a.k_proj.bias, a.v_proj.bias],
                cos,
                sin,
                eps,
                self.dtype,
            )
            q, k, v = (part.view(batch, length, -1, HEAD_DIM).transpose(1, 2) for part in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = self._after(
                x,
                mixed.transpose(1, 2).reshape(batch * length, -1),
                a.o_proj.weight,
                layer.post_attention_layernorm.weight,
                layer.mlp.gate_proj.weight,
                layer.mlp.up_proj.weight,
                layer.mlp.down_proj.weight,
                eps,
                self.dtype,
            )
        return self._loss(
            x[places],
            self.model.model.norm.weight,
            self.model.model.embed_tokens.weight,
            labels,
            eps,
            self.dtype,
        )


def _norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight).to(dtype)


def _before(
    x: Tensor,
    norm: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    cos: Tensor,
    sin: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalized, projected, turned: x float32 [N, hidden] to q, k, v [N, heads * dim]."""
    y = _norm(x, norm, eps, dtype)
    joined = F.linear(y, torch.cat(weights).to(dtype), torch.cat(biases).to(dtype))
    q, k, v = joined.split([w.shape[0] for w in weights], -1)
    return _turn(q, cos, sin), _turn(k, cos, sin), v.contiguous()


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE: channel i of a head turns with channel i + dim / 2."""
    a, b = x.view(x.shape[0], -1, 2, HEAD_DIM // 2).unbind(2)
    c, s = cos[:, None], sin[:, None]
    return torch.stack([a * c - b * s, b * c + a * s], 2).reshape(x.shape)


def _after(
    x: Tensor,
    mixed: Tensor,
    out: Tensor,
    norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """Attention's output and the feed-forward part, added to the stream float32 [N, hidden]."""
    x = x + F.linear(mixed, out.to(dtype))
    y = _norm(x, norm, eps, dtype)
    both = F.linear(y, torch.cat([gate, up]).to(dtype))
    g, u = both.chunk(2, -1)
    return x + F.linear(F.silu(g) * u, down.to(dtype))


def _loss(
    x: Tensor, norm: Tensor, words: Tensor, labels: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    logits = F.linear(_norm(x, norm, eps, dtype), words.to(dtype)).float()
    nats = F.cross_entropy(logits, labels, reduction="none")
    return torch.stack([nats, (logits.argmax(-1) == labels).float().detach()])
