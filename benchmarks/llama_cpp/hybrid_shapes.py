"""GGUF headers of recurrent models and of Gemma 4 with every size drawn anew.

Written as tensors rather than from a config.json, because llama.cpp's names for them are many. Each
has the fields of tests/data/gguf_headers.jsonl: `keys`, and `tensors` by name, shape and layers.
"""

import random
from typing import Any

Row = dict[str, Any]


class _Header:
    """Keys and tensors of one model as they are added."""

    def __init__(self, draw: random.Random, arch: str) -> None:
        self.draw, self.arch = draw, arch
        self.layers = draw.randint(2, 7)
        self.hidden = 32 * draw.randint(3, 20)
        self.vocab = draw.randint(400, 9000)
        self.heads_kv = draw.choice((1, 2, 4))
        self.heads = self.heads_kv * draw.choice((1, 2, 4))
        self.dim = draw.choice((32, 64, 96, 128))
        self.width = 32 * draw.randint(4, 40)
        self.keys: dict[str, Any] = {"general.architecture": arch, "general.type": "model"}
        self.tensors: dict[str, list[int]] = {}
        self.key("block_count", self.layers)
        self.key("context_length", 32768)
        self.key("embedding_length", self.hidden)
        self.key("feed_forward_length", self.width)
        self.key("attention.head_count", self.heads)
        self.key("attention.key_length", self.dim)
        self.key("attention.value_length", self.dim)
        self.key("rope.dimension_count", self.dim)
        self.key("rope.freq_base", 10000.0)
        self.key("vocab_size", self.vocab)
        self.keys["general.file_type"] = 32
        self.add("token_embd.weight", (self.hidden, self.vocab), [-1])
        self.add("output.weight", (self.hidden, self.vocab), [-1])

    def key(self, name: str, value: object) -> None:
        self.keys[f"{self.arch}.{name}"] = value

    def add(self, name: str, shape: tuple[int, ...], layers: list[int], kind: str = "") -> None:
        kind = kind or ("BF16" if len(shape) > 1 else "F32")
        self.tensors[f"{name} {'x'.join(map(str, shape))} {kind}"] = layers

    def block(self, name: str, *shape: int, at: list[int], kind: str = "") -> None:
        if at:
            self.add(f"blk.*.{name}", shape, at, kind)

    def norm(self, name: str, width: int, at: list[int]) -> None:
        self.block(f"{name}.weight", width, at=at)

    def attention(self, at: list[int], *, qk_norm: bool = False, gate: bool = False) -> None:
        rows, kv = self.heads * self.dim, self.heads_kv * self.dim
        self.block("attn_q.weight", self.hidden, rows * (2 if gate else 1), at=at)
        self.block("attn_k.weight", self.hidden, kv, at=at)
        self.block("attn_v.weight", self.hidden, kv, at=at)
        self.block("attn_output.weight", rows, self.hidden, at=at)
        if qk_norm:
            self.norm("attn_q_norm", self.dim, at)
            self.norm("attn_k_norm", self.dim, at)

    def dense(self, at: list[int], gated: bool = True) -> None:
        for name in ("ffn_gate", "ffn_up") if gated else ("ffn_up",):
            self.block(f"{name}.weight", self.hidden, self.width, at=at)
        self.block("ffn_down.weight", self.width, self.hidden, at=at)

    def experts(self, at: list[int], shared: bool) -> None:
        count, top = self.draw.choice((4, 8, 12)), self.draw.randint(1, 4)
        wide = 32 * self.draw.randint(2, 12)
        self.key("expert_count", count)
        self.key("expert_used_count", top)
        self.key("expert_feed_forward_length", wide)
        self.block("ffn_gate_inp.weight", self.hidden, count, at=at, kind="F32")
        for name in ("gate", "up"):
            self.block(f"ffn_{name}_exps.weight", self.hidden, wide, count, at=at)
        self.block("ffn_down_exps.weight", wide, self.hidden, count, at=at)
        if shared:
            self.key("expert_shared_feed_forward_length", self.width)
            self.block("ffn_gate_inp_shexp.weight", self.hidden, 1, at=at, kind="F32")
            for name in ("gate", "up"):
                self.block(f"ffn_{name}_shexp.weight", self.hidden, self.width, at=at)
            self.block("ffn_down_shexp.weight", self.width, self.hidden, at=at)

    def mamba2(self, at: list[int]) -> None:
        groups, state = self.draw.choice((1, 2, 4)), self.draw.choice((16, 32, 64))
        heads, dim = groups * self.draw.randint(1, 6), self.draw.choice((16, 32, 64))
        inner = heads * dim
        channels = inner + 2 * groups * state
        for name, value in (("conv_kernel", 4), ("state_size", state), ("group_count", groups),
                            ("inner_size", inner), ("time_step_rank", heads)):  # fmt: skip
            self.key(f"ssm.{name}", value)
        self.block("ssm_in.weight", self.hidden, inner + channels + heads, at=at)
        self.block("ssm_conv1d.weight", 4, channels, at=at, kind="F32")
        self.block("ssm_conv1d.bias", channels, at=at)
        self.block("ssm_dt.bias", heads, at=at)
        self.block("ssm_a", 1, heads, at=at, kind="F32")
        self.block("ssm_d", 1, heads, at=at, kind="F32")
        self.block("ssm_norm.weight", inner // groups, groups, at=at, kind="F32")
        self.block("ssm_out.weight", inner, self.hidden, at=at)

    def delta(self, at: list[int], split: bool) -> None:
        key_heads, dim = self.draw.choice((1, 2, 4)), self.draw.choice((32, 64, 128))
        heads = key_heads * self.draw.choice((1, 2))
        values, channels = heads * dim, heads * dim + 2 * key_heads * dim
        for name, value in (("conv_kernel", 4), ("state_size", dim), ("group_count", key_heads),
                            ("inner_size", values), ("time_step_rank", heads)):  # fmt: skip
            self.key(f"ssm.{name}", value)
        self.block("ssm_a", heads, at=at)
        self.block("ssm_conv1d.weight", 4, channels, at=at, kind="F32")
        self.block("ssm_dt.bias", heads, at=at)
        if split:
            self.block("ssm_alpha.weight", self.hidden, heads, at=at)
            self.block("ssm_beta.weight", self.hidden, heads, at=at)
        else:
            self.block("ssm_ba.weight", self.hidden, 2 * heads, at=at)
        self.block("attn_qkv.weight", self.hidden, channels, at=at)
        self.block("attn_gate.weight", self.hidden, values, at=at)
        self.norm("ssm_norm", dim, at)
        self.block("ssm_out.weight", values, self.hidden, at=at)

    def finished(self, name: str) -> Row:
        self.norm("attn_norm", self.hidden, list(range(self.layers)))
        self.add("output_norm.weight", (self.hidden,), [-1])
        return {"name": name, "keys": self.keys, "tensors": self.tensors}


def _kinds(h: _Header) -> tuple[list[int], list[int], list[int]]:
    """All layers, those that attend, and the others; at least one of each."""
    every = list(range(h.layers))
    attends = sorted(h.draw.sample(every, h.draw.randint(1, h.layers - 1)))
    return every, attends, [i for i in every if i not in attends]


def mamba2(draw: random.Random) -> Row:
    h = _Header(draw, "mamba2")
    h.mamba2(list(range(h.layers)))
    return h.finished("mamba2")


def granite(draw: random.Random) -> Row:
    h = _Header(draw, "granitehybrid")
    every, attends, scans = _kinds(h)
    h.dim = h.hidden // h.heads // 32 * 32 or 32
    h.key("attention.head_count_kv", [h.heads_kv if i in attends else 0 for i in every])
    h.key("attention.key_length", h.dim)
    h.key("attention.value_length", h.dim)
    h.key("residual_scale", 0.5)
    h.attention(attends)
    h.mamba2(scans)
    h.norm("ffn_norm", h.hidden, every)
    h.dense(every)
    return h.finished("granite")


def falcon_h1(draw: random.Random) -> Row:
    h = _Header(draw, "falcon-h1")
    every = list(range(h.layers))
    h.key("attention.head_count_kv", h.heads_kv)
    h.attention(every)
    h.mamba2(every)
    h.norm("ffn_norm", h.hidden, every)
    h.dense(every)
    return h.finished("falcon_h1")


def nemotron_h(draw: random.Random) -> Row:
    h = _Header(draw, "nemotron_h")
    every, attends, rest = _kinds(h)
    scans, wide = rest[::2], rest[1::2]
    h.key("attention.head_count_kv", [h.heads_kv if i in attends else 0 for i in every])
    h.key("feed_forward_length", [h.width if i in wide else 0 for i in every])
    h.attention(attends)
    h.mamba2(scans)
    h.dense(wide, gated=False)
    return h.finished("nemotron_h")


def qwen3_next(draw: random.Random) -> Row:
    split = draw.random() < 0.6
    dense = split and draw.random() < 0.5
    arch = ("qwen35" if dense else "qwen35moe") if split else "qwen3next"
    h = _Header(draw, arch)
    every, attends, scans = _kinds(h)
    h.key("attention.head_count_kv", h.heads_kv)
    h.key("attention.recurrent_layers", [i in scans for i in every])
    h.key("full_attention_interval", 4)
    h.key("rope.dimension_count", h.dim // 4)
    if split:
        h.key("rope.dimension_sections", [h.dim // 8, 0, 0, 0])
    h.attention(attends, qk_norm=True, gate=True)
    h.delta(scans, split)
    h.norm("post_attention_norm", h.hidden, every)
    if dense:
        h.dense(every)
    else:
        h.experts(every, shared=True)
    return h.finished(arch)


def lfm2(draw: random.Random) -> Row:
    h = _Header(draw, "lfm2")
    every, attends, convolves = _kinds(h)
    h.key("attention.head_count_kv", [h.heads_kv if i in attends else 0 for i in every])
    h.key("shortconv.l_cache", 3)
    h.attention(attends, qk_norm=True)
    h.block("shortconv.conv.weight", 3, h.hidden, at=convolves, kind="F32")
    h.block("shortconv.in_proj.weight", h.hidden, 3 * h.hidden, at=convolves)
    h.block("shortconv.out_proj.weight", h.hidden, h.hidden, at=convolves)
    h.norm("ffn_norm", h.hidden, every)
    h.dense(every)
    row = h.finished("lfm2")
    norm = f"output_norm.weight {h.hidden} F32"
    row["tensors"][f"token_embd_norm.weight {h.hidden} F32"] = row["tensors"].pop(norm)
    return row


FAMILIES = (mamba2, granite, falcon_h1, nemotron_h, qwen3_next, lfm2)
