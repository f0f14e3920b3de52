"""LongCat Flash, and LongCat Flash Lite with its tables of n-grams.

Lite's code comes with its checkpoint: the tables were read from it and from its ports.
"""

from ...config_fields import Fields
from ...spec import Layer, MoEFFN, Role
from ...tensor_list import Tensors
from ..blocks.ffn import gated
from ..blocks.layer_types import FULL
from ..decoder import Block, Decoder, build_layers, max_context
from ..deepseek import mla

MAX_ROWS = 2**33  # of a table of n-grams: more is a mistake


def longcat(f: Fields, t: Tensors) -> Decoder:
    """LongCat Flash: two attentions and two dense FFNs a layer, experts beside the second.

    Some experts are the identity: they are routed to, and have no weights. transformers' class
    allots two matrices to each of them, which no checkpoint has.
    """
    layers, hidden, vocab = f.layers("num_layers"), f.count("hidden_size"), f.count("vocab_size")
    b = Block(f, t, hidden)
    count, zero = f.count("n_routed_experts"), f.count("zero_expert_num", 0, low=0)
    width = f.count("expert_ffn_hidden_size")
    top_k = f.count("moe_topk")

    def layer(_: str) -> Layer:
        with t.scope("mlp."):
            t.add("experts.gate_up_proj", (count, 2 * width, hidden), Role.EXPERT)
            t.add("experts.down_proj", (count, hidden, width), Role.EXPERT)
            bias = f.flag("router_bias")
            t.linear("router.classifier", hidden, count + zero, bias, role=Role.ROUTER)
        with t.scope(times=2):
            attention = mla(b, scope="self_attn.*.")
            dense = gated(b, width="ffn_hidden_size", scope="mlps.*.")
            t.norm("input_layernorm.*", hidden)
            t.norm("post_attention_layernorm.*", hidden)
        ffn = MoEFFN(count + zero, top_k, width, 2 * dense.width, True, dense.activation)
        return Layer((attention, attention), ffn)

    with t.scope("model."):
        t.embedding("embed_tokens", vocab, hidden)
        if f.has("ngram_vocab_size_ratio"):
            ngram_tables(b, vocab)
        built = build_layers(t, "layers.*.", [FULL] * layers, layer)
        t.norm("norm", hidden)
    tied = f.flag("tie_word_embeddings")
    if not tied:
        t.head("lm_head", hidden, vocab)
    return Decoder(hidden, vocab, max_context(f), built, tied)


def ngram_tables(b: Block, vocab: int) -> None:
    """LongCat-Flash-Lite: hashed n-grams of 2 to `emb_neighbor_num` tokens, each in
    `emb_split_num` tables of a few rows more than `ngram_vocab_size_ratio` vocabularies."""
    f, t = b.f, b.t
    ratio = f.number("ngram_vocab_size_ratio") or 0.0
    longest, splits = f.count("emb_neighbor_num", low=2, high=64), f.count("emb_split_num", high=64)
    tables = splits * (longest - 1)
    rows, narrow = int(ratio * vocab), max(1, b.hidden // tables)
    if not 1 <= rows <= MAX_ROWS:
        raise f.wrong("ngram_vocab_size_ratio", ratio, "a number of vocabularies")
    for i in range(tables):
        t.embedding("ngram_embeddings.embedders.*", rows + 2 * i + 1, narrow)
    with t.scope(times=tables):
        t.linear("ngram_embeddings.post_projs.*", narrow, b.hidden)


READERS = {"longcat_flash": longcat, "longcat_flash_ngram": longcat}
