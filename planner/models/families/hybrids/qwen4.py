"""Qwen4-Exp: gated delta nets and sparse attention over several residual streams, with n-grams.

Each block reads a low-rank mixture of `hc_count` streams. Full layers choose blocks of tokens by
an indexer that caches one key for each token, and its three positions. Some linear layers add
embeddings of hashed n-grams: tables of a prime number of rows for each n-gram head, which are
most of the model's weights, and a dilated convolution whose tail is kept beside the last ids.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt

from ...config_fields import Fields
from ...spec import FFN, Attention, Indexer, Mixer, RecurrentState, Role
from ..blocks.attention import gqa
from ..blocks.layer_types import FULL, LINEAR
from ..blocks.recurrent import gated_delta_net
from ..decoder import Block, Style, layer_types
from ..moe import SHARED_EXPERT, all_moe

POSITIONS = 3 * 8  # bytes: a token's int64 place in time, height and width


def qwen4_kinds(f: Fields, layers: int) -> Sequence[str]:
    """`linear_attention:0` is the first layer with n-grams; `ple_layer_ids` count from 1."""
    every = f.count("full_attention_interval", 4)
    given = layer_types(f, layers) or [LINEAR if (i + 1) % every else FULL for i in range(layers)]
    at = sorted(set(f.counts("ple_layer_ids", low=1, high=layers) or ()))
    return [f"{kind}:{at.index(i + 1)}" if i + 1 in at else kind for i, kind in enumerate(given)]


def qwen4_mixers(b: Block, kind: str) -> tuple[Mixer, ...]:
    name, _, table = kind.partition(":")
    for at in ("attn_hyper_connection.", "mlp_hyper_connection."):
        mixed_streams(b, at)
        streams = b.f.count("hc_count", high=64)
        b.t.linear(f"{at}block_inject_weight", streams * b.hidden, streams)
    if name != LINEAR:
        return (_sparse(b),)
    state = gated_delta_net(b, split=True)
    return (state, _ngrams(b, int(table))) if table else (state,)


def mixed_streams(b: Block, scope: str) -> None:
    wide, rank = b.f.count("hc_count", high=64) * b.hidden, b.f.count("hc_lowrank")
    b.t.norm(f"{scope}hc_norm", wide)
    b.t.linear(f"{scope}input_mix_weight_down", wide, rank)
    b.t.linear(f"{scope}input_mix_weight_up", rank, wide)


def _sparse(b: Block) -> Attention:
    f, t = b.f, b.t
    mixer = gqa(b, FULL, bias="attention_bias", qk_norm="head", gate="double")
    count, dim = f.count("indexer_n_heads"), f.count("indexer_head_dim")
    keys = f.count("indexer_kv_heads")
    with t.scope("self_attn.indexer."):
        t.linear("index_qk_proj", b.hidden, (count + keys) * dim)
        t.norm("q_layernorm", dim)
        t.norm("k_layernorm", dim)
    budget = f.count("indexer_budget")
    return replace(mixer, indexer=Indexer(count, dim, budget, position_bytes=POSITIONS))


def _ngrams(b: Block, index: int) -> RecurrentState:
    f, t = b.f, b.t
    size, heads = f.count("ngram_size", low=2, high=16), f.count("heads_per_ngram", high=64)
    width, kernel = f.optional_count("ple_embed_dim") or b.hidden, f.count("ple_conv_kernel_size")
    count = (size - 1) * heads
    wide = f.count("hc_count", high=64) * b.hidden
    rows = sum(primes_from(f.count("ngram_vocab_size_base"), index * count, count))
    multiple = f.count("make_ngram_vocab_size_divisible_by")
    rows = -(-rows // multiple) * multiple
    with t.scope("ple."):
        t.embedding("ple_embedding.ngram_embedding", rows, width // count)
        t.linear("key_proj", width, wide)
        t.linear("value_proj", width, b.hidden)
        for name in ("norm_key", "norm_query", "norm_conv"):
            t.norm(name, wide)
        t.add("conv1d.weight", (wide, 1, kernel), Role.CONV)
    return RecurrentState(
        "short_conv",
        state=2 * (size - 1),  # the last tokens' ids, in 8 bytes each
        conv=wide * (kernel - 1) * size,
        heads=1,
        key_dim=0,
        value_dim=wide,
        width=2 * wide,
        state_dtype="float32",
    )


def primes_from(least: int, skip: int, count: int) -> list[int]:
    """`count` successive primes of at least `least`, after the first `skip` of them."""
    primes: list[int] = []
    candidate = max(2, least)
    while len(primes) < skip + count:
        if all(candidate % divisor for divisor in range(2, isqrt(candidate) + 1)):
            primes.append(candidate)
        candidate += 1
    return primes[skip:]


def qwen4_ffn(b: Block, kind: str) -> FFN:
    ffn: FFN = SHARED_EXPERT(b, kind)
    return ffn


def qwen4_head(b: Block) -> None:
    mixed_streams(b, "hyper_connection_mixer.")


STYLES: dict[str, Style] = {
    "qwen4_exp_text": Style(
        attention=qwen4_mixers,
        ffn=qwen4_ffn,
        kinds=qwen4_kinds,
        ffn_kinds=all_moe,
        norms=(),
        norm="rms_offset",
        final_norm=None,
        extra=qwen4_head,
    )
}
