"""DeepSeek V4: one KV head, a short window, and compressed entries for what lies further back.

Layers are of three kinds: a plain window (keys and values stored apart), one that also keeps an
entry for every 128 tokens ("heavily compressed"), and one that keeps an entry for every 4,
chosen by an indexer ("compressed sparse"). Four residual streams are mixed around each block.
"""

from collections.abc import Sequence

from ..config_fields import Fields
from ..spec import Attention, CompressedAttention, Indexer, Mixer, MoEFFN, Role
from .blocks.ffn import activation, experts, gated
from .blocks.layer_types import SLIDING
from .decoder import Block, Style

HEAVY, SPARSE = "heavily_compressed_attention", "compressed_sparse_attention"
RATES = {SPARSE: 4, HEAVY: 128}
_OF_RATIO = {0: SLIDING, 4: SPARSE, 128: HEAVY}


def kinds(f: Fields, layers: int) -> Sequence[str]:
    """`layer_types`, else older `compress_ratios` (0, 4 or 128 for each layer), else V4's own."""
    given, name = f.texts("layer_types") or None, "layer_types"
    if given is None and f.has("compress_ratios"):
        name = "compress_ratios"
        ratios = f.counts(name) or ()
        if set(ratios) - set(_OF_RATIO):
            raise f.wrong(name, list(ratios), "made of 0, 4 and 128")
        given = tuple(_OF_RATIO[ratio] for ratio in ratios)
    if given is None:
        given = (HEAVY,) * min(layers, 2) + tuple(
            SPARSE if i % 2 else HEAVY for i in range(max(layers - 2, 0))
        )
    if len(given) < layers:
        raise f.wrong(name, f.raw.get(name), f"one for each of the {layers} layers")
    return given[:layers]


def rate(f: Fields, kind: str) -> int:
    """Tokens an entry stands for."""
    older = "compress_rate_csa" if kind == SPARSE else "compress_rate_hca"
    rates = f.mapping("compress_rates") or {}
    tokens = rates.get(kind, RATES[kind])
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= 2**20:
        raise f.wrong("compress_rates", tokens, "a whole number of tokens")
    return f.count(older, tokens)


def attention(b: Block, kind: str) -> Mixer:
    """Attention in a window and, but for sliding layers, over entries of several tokens each."""
    f, t = b.f, b.t
    heads, dim, rank = f.count("num_attention_heads"), f.count("head_dim"), f.count("q_lora_rank")
    groups, out = f.count("o_groups"), f.count("o_lora_rank")
    window = f.count("sliding_window", high=2**31)
    if kind not in (SLIDING, *RATES):
        raise f.wrong("layer_types", kind, "a kind of attention DeepSeek V4 has")
    if heads * dim % groups:
        raise f.wrong("o_groups", groups, f"a divisor of {heads} heads of {dim}")
    indexer = None
    with t.scope("self_attn."):
        t.add("sinks", (heads,), Role.OTHER)
        t.linear("q_a_proj", b.hidden, rank)
        t.norm("q_a_norm", rank)
        t.linear("q_b_proj", rank, heads * dim)
        t.linear("kv_proj", b.hidden, dim)
        t.norm("kv_norm", dim)
        t.linear("o_a_proj", heads * dim // groups, groups * out)
        t.linear("o_b_proj", groups * out, b.hidden)
        if kind == SLIDING:
            return Attention(heads, 1, dim, dim, window, sinks=True)
        every = rate(f, kind)
        with t.scope("compressor."):
            _compressor(b, every, dim * (2 if kind == SPARSE else 1), dim)
            if kind == SPARSE:
                small, many = f.count("index_head_dim"), f.count("index_n_heads")
                with t.scope("indexer."):
                    _compressor(b, every, 2 * small, small)
                    t.linear("q_b_proj", rank, many * small)
                    t.linear("scorer.weights_proj", b.hidden, many)
                indexer = Indexer(many, small, f.count("index_topk"))
    return CompressedAttention(heads, dim, window, every, overlaps=kind == SPARSE, indexer=indexer)


def _compressor(b: Block, every: int, width: int, dim: int) -> None:
    b.t.add("position_bias", (every, width), Role.OTHER)
    b.t.linear("kv_proj", b.hidden, width)
    b.t.linear("gate_proj", b.hidden, width)
    b.t.norm("kv_norm", dim)


def ffn(b: Block, kind: str) -> MoEFFN:
    """Experts and a shared one, between the two mixers of the residual streams."""
    f, t = b.f, b.t
    count, width = f.count("n_routed_experts"), f.count("moe_intermediate_size")
    with t.scope("mlp."):
        t.linear("gate", b.hidden, count, role=Role.ROUTER)
        experts(b, count, width)
        gated(b, width=width, bias="mlp_bias", scope="shared_experts.")
    streams = f.count("hc_mult", high=64)
    mixed = (2 + streams) * streams
    for name in ("attn_hc.", "ffn_hc."):
        t.add(f"{name}fn", (mixed, streams * b.hidden), Role.OTHER)
        t.add(f"{name}base", (mixed,), Role.OTHER)
        t.add(f"{name}scale", (3,), Role.OTHER)
    return MoEFFN(count, f.count("num_experts_per_tok"), width, width, True, activation(f))


def head_mixer(b: Block) -> None:
    streams = b.f.count("hc_mult", high=64)
    b.t.add("hc_head.hc_fn", (streams, streams * b.hidden), Role.OTHER)
    b.t.add("hc_head.hc_base", (streams,), Role.OTHER)
    b.t.add("hc_head.hc_scale", (1,), Role.OTHER)


STYLES: dict[str, Style] = {
    "deepseek_v4": Style(attention=attention, ffn=ffn, kinds=kinds, extra=head_mixer),
}
ALIASES = {"deepseek_ref": "deepseek_v4"}
