"""Gemma 3n and 4: layers that share caches, inputs of their own, and two kinds of heads.

The last `num_kv_shared_layers` layers compute no keys and values: each reads the cache of the
last layer before them that is of its kind.
"""

from collections.abc import Sequence

from ..config_fields import Fields
from ..spec import FFN, Attention, DenseFFN, MoEFFN, Part, Role
from ..tensor_list import Tensors
from .blocks.attention import windows
from .blocks.ffn import activation, experts, gated
from .blocks.layer_types import FULL, SLIDING, every_nth_full
from .config_defaults import section
from .decoder import Block, Decoder, Style, layer_types, text_decoder
from .llama import SANDWICH


def sharing(f: Fields, kinds: Sequence[str]) -> list[str]:
    """Mark layers that read another layer's cache: `sliding_attention>12` reads layer 12's."""
    shared = f.count("num_kv_shared_layers", 0, low=0, high=len(kinds))
    first = len(kinds) - shared
    marked = list(kinds)
    for i in range(first, len(kinds)):
        sources = [j for j in range(first) if kinds[j] == kinds[i]]
        if not sources:
            raise f.wrong("num_kv_shared_layers", shared, "few enough to leave each kind a cache")
        marked[i] = f"{kinds[i]}>{sources[-1]}"
    return marked


def gemma4_kinds(f: Fields, layers: int) -> Sequence[str]:
    kinds = layer_types(f, layers)
    if kinds is None:
        kinds = [FULL if (i + 1) % 6 == 0 else SLIDING for i in range(layers)]
    return sharing(f, [*kinds[:-1], FULL])


def gemma3n_kinds(f: Fields, layers: int) -> Sequence[str]:
    return sharing(f, every_nth_full(5, field="")(f, layers))


def attention(b: Block, kind: str, dim: int, kv: int, *, same: bool = False) -> Attention:
    """`same`: values are the keys, so there is no v_proj (both are cached all the same)."""
    f, t = b.f, b.t
    name, _, source = kind.partition(">")
    query, bias = f.count("num_attention_heads"), f.flag("attention_bias")
    window, _ = windows(f, name)
    with t.scope("self_attn."):
        t.linear("q_proj", b.hidden, query * dim, bias)
        t.norm("q_norm", dim)
        if not source:
            t.norm("k_norm", dim)
            t.linear("k_proj", b.hidden, kv * dim, bias)
            if not same:
                t.linear("v_proj", b.hidden, kv * dim, bias)
        t.linear("o_proj", query * dim, b.hidden, bias)
    return Attention(
        query_heads=query,
        kv_heads=kv,
        head_dim=dim,
        value_dim=dim,
        window=window,
        shares_kv_with=int(source) if source else None,
        qk_norm=True,
        qkv_bias=bias,
    )


def gemma3n_attention(b: Block, kind: str) -> Attention:
    return attention(b, kind, b.f.count("head_dim"), b.f.count("num_key_value_heads"))


def gemma4_attention(b: Block, kind: str) -> Attention:
    """Layers that see everything have wider heads, and fewer of them where K is V."""
    f = b.f
    kv = f.count("num_key_value_heads")
    if not kind.startswith(FULL):
        return attention(b, kind, f.count("head_dim"), kv)
    same = f.flag("attention_k_eq_v")
    own = layers_apart(f)
    if own is not None:
        dim = own.count("head_dim", f.count("head_dim"))
        return attention(b, kind, dim, own.count("num_key_value_heads", kv), same=same)
    if same:
        kv = f.optional_count("num_global_key_value_heads") or kv
    return attention(b, kind, f.count("global_head_dim", 512), kv, same=same)


def layers_apart(f: Fields) -> Fields | None:
    """What a file written by transformers 5.23 says of its full layers, one entry for each.

    Such a file has `per_layer_config` in place of `global_head_dim` and the heads of full layers.
    """
    each = f.mapping("per_layer_config")
    if not each:
        return None
    own = list(each.values())
    if not all(isinstance(entry, dict) and entry == own[0] for entry in own):
        raise f.wrong("per_layer_config", each, "the same for every full layer")
    return Fields(own[0], kind=f.kind, path=f"{f.path}per_layer_config.", notes=f.notes)


def per_layer_inputs(b: Block) -> None:
    """A small gated input from the layer's own embedding."""
    width = b.f.count("hidden_size_per_layer_input", low=0)
    if width:
        b.t.linear("per_layer_input_gate", b.hidden, width)
        b.t.linear("per_layer_projection", width, b.hidden)
        b.t.norm("post_per_layer_input_norm", b.hidden)


def per_layer_tables(b: Block) -> None:
    """The embeddings those inputs come from: one slice for each layer."""
    f, t = b.f, b.t
    width, layers = f.count("hidden_size_per_layer_input", low=0), f.layers()
    if width:
        t.embedding("embed_tokens_per_layer", f.count("vocab_size_per_layer_input"), layers * width)
        t.linear("per_layer_model_projection", b.hidden, layers * width)
        t.norm("per_layer_projection_norm", width)


def gemma4_ffn(b: Block, kind: str) -> FFN:
    """The gated FFN, twice as wide where caches are shared, and experts beside it in mixtures."""
    f, t = b.f, b.t
    width = f.count("intermediate_size") * (2 if kind == "wide" else 1)
    ffn: FFN = gated(b, width=width)
    per_layer_inputs(b)
    if not f.flag("enable_moe_block"):
        return ffn
    count, inner = f.count("num_experts"), f.count("moe_intermediate_size")
    with t.scope("router."):
        t.add("scale", (b.hidden,), Role.OTHER)
        t.add("per_expert_scale", (count,), Role.OTHER)
        t.linear("proj", b.hidden, count, role=Role.ROUTER)
    experts(b, count, inner)
    for name in ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2"):
        t.norm(name, b.hidden)
    t.norm("pre_feedforward_layernorm_2", b.hidden)
    return MoEFFN(count, f.count("top_k_experts"), inner, width, True, activation(f))


def gemma4_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    wide = f.flag("use_double_wide_mlp")
    return ["wide" if wide and ">" in kind else "dense" for kind in gemma4_kinds(f, layers)]


def gemma3n_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    return [str(width) for width in f.count_per_layer("intermediate_size", layers, low=1)]


def gemma3n_ffn(b: Block, kind: str) -> DenseFFN:
    """An FFN beside AltUp's predictions and LAuReL's low-rank branch."""
    f, t = b.f, b.t
    ffn = gated(b, width=int(kind))
    streams, rank = f.count("altup_num_inputs"), f.count("laurel_rank")
    with t.scope("altup."):
        t.add("correct_output_scale", (b.hidden,), Role.OTHER)
        t.linear("correction_coefs", streams, streams, role=Role.OTHER)
        t.linear("prediction_coefs", streams, streams * streams, role=Role.OTHER)
        t.linear("modality_router", b.hidden, streams, role=Role.ROUTER)
        t.norm("router_norm", b.hidden)
    with t.scope("laurel."):
        t.linear("linear_left", b.hidden, rank)
        t.linear("linear_right", rank, b.hidden)
        t.norm("post_laurel_norm", b.hidden)
    per_layer_inputs(b)
    return ffn


def gemma3n_tables(b: Block) -> None:
    per_layer_tables(b)
    more = b.f.count("altup_num_inputs") - 1
    with b.t.scope(times=more):
        b.t.linear("altup_projections.*", b.hidden, b.hidden)
        b.t.linear("altup_unembed_projections.*", b.hidden, b.hidden)


def gemma4_vision(f: Fields, t: Tensors) -> None:
    """Gemma 4's image encoder: positions looked up on two axes, norms around both blocks."""
    width, patch = f.count("hidden_size"), f.count("patch_size")
    heads, kv, dim = (
        f.count(k) for k in ("num_attention_heads", "num_key_value_heads", "head_dim")
    )
    with t.scope("patch_embedder."):
        t.add(
            "position_embedding_table",
            (2, f.count("position_embedding_size"), width),
            Role.EMBEDDING,
        )
        t.linear("input_proj", 3 * patch * patch, width)
    with t.scope("encoder.layers.*.", f.layers()):
        t.linear("self_attn.q_proj.linear", width, heads * dim)
        t.linear("self_attn.k_proj.linear", width, kv * dim)
        t.linear("self_attn.v_proj.linear", width, kv * dim)
        t.linear("self_attn.o_proj.linear", heads * dim, width)
        t.norm("self_attn.q_norm", dim)
        t.norm("self_attn.k_norm", dim)
        inner = f.count("intermediate_size")
        t.linear("mlp.gate_proj.linear", width, inner)
        t.linear("mlp.up_proj.linear", width, inner)
        t.linear("mlp.down_proj.linear", inner, width)
        for name in SANDWICH:
            t.norm(name, width)


def gemma4_audio(f: Fields, t: Tensors) -> None:
    """A conformer: convolutions that subsample, then attention between half-step FFNs."""
    width, heads = f.count("hidden_size"), f.count("num_attention_heads")
    channels = f.counts("subsampling_conv_channels", 2, low=1) or (128, 32)
    with t.scope("subsample_conv_projection."):
        for i, (inputs, outputs) in enumerate(((1, channels[0]), channels)):
            t.add(f"layer{i}.conv.weight", (outputs, inputs, 3, 3), Role.CONV)
            t.norm(f"layer{i}.norm", outputs)
        t.linear("input_proj_linear", channels[0] // 4 * channels[1], width)
    with t.scope("layers.*.", f.layers()):
        for name in ("feed_forward1.", "feed_forward2."):
            t.linear(f"{name}ffw_layer_1.linear", width, 4 * width)
            t.linear(f"{name}ffw_layer_2.linear", 4 * width, width)
            t.norm(f"{name}pre_layer_norm", width)
            t.norm(f"{name}post_layer_norm", width)
        t.add("self_attn.per_dim_scale", (width // heads,), Role.OTHER)
        for name in ("q_proj.linear", "k_proj.linear", "v_proj.linear", "post.linear"):
            t.linear(f"self_attn.{name}", width, width)
        t.linear("self_attn.relative_k_proj", width, width)
        t.linear("lconv1d.linear_start.linear", width, 2 * width)
        t.linear("lconv1d.linear_end.linear", width, width)
        kernel = f.count("conv_kernel_size")
        t.add("lconv1d.depthwise_conv1d.weight", (width, 1, kernel), Role.CONV)
        t.norm("lconv1d.pre_layer_norm", width)
        t.norm("lconv1d.conv_norm", width)
        for name in ("norm_pre_attn", "norm_post_attn", "norm_out"):
            t.norm(name, width)
    t.linear("output_proj", width, f.count("output_proj_dims"), True)


def gemma4(f: Fields, t: Tensors) -> Decoder:
    """Gemma 4 with the towers its config has: null means none."""
    text = section(f, "text_config")
    hidden = text.count("hidden_size")
    if f.has("vision_config"):
        seen = section(f, "vision_config")
        with t.scope("model.vision_tower.", part=Part.VISION):
            gemma4_vision(seen, t)
        with t.scope("model.embed_vision.", part=Part.PROJECTOR):
            t.linear("embedding_projection", seen.count("hidden_size"), hidden)
    if f.has("audio_config"):
        heard = section(f, "audio_config")
        with t.scope("model.audio_tower.", part=Part.AUDIO):
            gemma4_audio(heard, t)
        with t.scope("model.embed_audio.", part=Part.PROJECTOR):
            t.linear("embedding_projection", heard.count("output_proj_dims"), hidden)
    tied = f.flag("tie_word_embeddings")
    return text_decoder(text, t, STYLES["gemma4_text"], tied=tied, prefix="model.language_model.")


GEMMA4 = Style(
    attention=gemma4_attention,
    ffn=gemma4_ffn,
    norms=SANDWICH,
    sandwich=True,
    kinds=gemma4_kinds,
    ffn_kinds=gemma4_ffn_kinds,
    extra=per_layer_tables,
    softcap="final_logit_softcapping",
)
STYLES: dict[str, Style] = {
    "gemma4_text": GEMMA4,
    "gemma3n_text": GEMMA4.but(
        attention=gemma3n_attention,
        ffn=gemma3n_ffn,
        kinds=gemma3n_kinds,
        ffn_kinds=gemma3n_ffn_kinds,
        extra=gemma3n_tables,
    ),
}
READERS = {"gemma4": gemma4}
