"""The newest text models: Step 3.5 to 3.7, MiniMax M3, Kimi K3."""

from collections.abc import Sequence
from dataclasses import replace

from ..config_fields import Fields
from ..spec import FFN, Attention, Indexer, LatentAttention, Mixer, MoEFFN, Role
from ..tensor_list import Tensors
from .blocks.attention import gqa
from .blocks.ffn import activation, gated, moe
from .blocks.layer_types import FULL, SLIDING
from .config_defaults import section
from .decoder import Block, Decoder, Style, layer_types, text_decoder
from .deepseek import mla
from .hybrids.olmo_hybrid_zamba import kimi_delta, kimi_ffn_kinds, kimi_kinds
from .llama import STYLES as KNOWN
from .unknown.encoders import tower_bounds

SPARSE = "minimax_m3_sparse"


def step_kinds(f: Fields, layers: int) -> Sequence[str]:
    """Step's files list their extra prediction layers after the others."""
    given = f.texts("layer_types")
    if given is None:
        return [FULL] * layers
    extra = f.count("num_nextn_predict_layers", 0, low=0, high=64)
    if len(given) not in (layers, layers + extra):
        raise f.wrong("layer_types", list(given), f"a list of {layers}, one for each layer")
    return given[:layers]


def step_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = f.texts("mlp_layer_types")
    if given is not None and len(given) >= layers:
        return given[:layers]
    listed = f.raw.get("moe_layers_enum")
    if isinstance(listed, str):
        at = {int(item) for item in listed.split(",") if item.strip().isdigit()}
    else:
        at = set(f.counts("moe_layers_enum") or range(3, layers))
    return ["sparse" if i in at else "dense" for i in range(layers)]


def step_attention(b: Block, kind: str) -> Attention:
    """A gate for each head; sliding layers may have more query heads."""
    f = b.f
    own = f
    if kind == SLIDING and f.has("num_sliding_attention_heads"):
        raw = f.changed(num_attention_heads=f.count("num_sliding_attention_heads"))
        own = Fields(raw, kind=f.kind, path=f.path, defaults=f.defaults, notes=f.notes)
    mixer = gqa(Block(own, b.t, b.hidden), kind, bias="attention_bias", qk_norm="head")
    b.t.linear("self_attn.g_proj", b.hidden, mixer.query_heads)
    return replace(mixer, output_gate=True)


def step_ffn(b: Block, kind: str) -> FFN:
    if kind == "dense":
        return gated(b, bias="mlp_bias")
    name = "n_routed_experts"
    for older in ("moe_num_experts", "num_experts"):
        name = older if b.f.has(older) else name
    ffn = moe(b, experts_field=name)
    shared = b.f.count("share_expert_dim")
    gated(b, width=shared, bias="mlp_bias", scope="mlp.shared_experts.")
    return replace(ffn, shared_width=shared)


def _sparse_size(f: Fields, name: str, older: str) -> int:
    section = f.mapping("sparse_attention_config") or {}
    inner = Fields(section, path=f"{f.path}sparse_attention_config.", notes=f.notes)
    return inner.count(older) if older in section else f.count(name)


def m3_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = layer_types(f, layers)
    section = f.mapping("sparse_attention_config") or {}
    if given is not None or "sparse_attention_freq" not in section:
        return given or [FULL] * layers
    inner = Fields(section, path=f"{f.path}sparse_attention_config.", notes=f.notes)
    sparse = inner.counts("sparse_attention_freq", layers) or ()
    return [SPARSE if each else FULL for each in sparse]


def m3_ffn_kinds(f: Fields, layers: int) -> Sequence[str]:
    given = f.texts("mlp_layer_types", layers)
    if given is not None:
        return given
    sparse = f.counts("moe_layer_freq", layers)
    return ["sparse"] * layers if sparse is None else ["sparse" if x else "dense" for x in sparse]


def m3_attention(b: Block, kind: str) -> Attention:
    """Sparse layers keep one small key more for each token, by which blocks are chosen."""
    if kind != SPARSE:
        return gqa(b, kind, qk_norm="head")
    mixer = gqa(b, FULL, qk_norm="head")
    heads = _sparse_size(b.f, "index_n_heads", "sparse_num_index_heads")
    dim = _sparse_size(b.f, "index_head_dim", "sparse_index_dim")
    with b.t.scope("self_attn.indexer."):
        b.t.linear("q_proj", b.hidden, heads * dim)
        b.t.linear("k_proj", b.hidden, dim)
        b.t.norm("q_norm", dim)
        b.t.norm("k_norm", dim)
    blocks = _sparse_size(b.f, "index_topk_blocks", "sparse_topk_blocks")
    size = _sparse_size(b.f, "index_block_size", "sparse_block_size")
    return replace(mixer, indexer=Indexer(heads, dim, blocks * size))


def m3_ffn(b: Block, kind: str) -> FFN:
    f, t = b.f, b.t
    if kind == "dense":
        width = f.count("dense_intermediate_size")
        ffn: FFN = gated(b, width=width, fused="gate_up_proj")
        return ffn
    sparse = moe(b, experts_field="num_local_experts", width="intermediate_size")
    shared = f.count("shared_intermediate_size")
    with t.scope("mlp."):
        gated(b, width=shared, fused="gate_up_proj", scope="shared_experts.")
    return replace(sparse, shared_width=shared)


def k3_mixer(b: Block, kind: str) -> Mixer:
    """Kimi K3: delta attention with a full-rank gate, and MLA whose output is gated."""
    f, t = b.f, b.t
    if kind != FULL:
        return kimi_delta(b)
    mixer: LatentAttention = mla(b)
    if f.flag("mla_use_output_gate"):
        t.linear("self_attn.g_proj", b.hidden, mixer.query_heads * mixer.value_dim)
    return mixer


def k3_ffn(b: Block, kind: str) -> FFN:
    """Experts work in a latent of `routed_expert_hidden_size`, the shared ones do not."""
    f, t = b.f, b.t
    if kind == "dense":
        return gated(b)
    count, width = f.count("num_experts"), f.count("moe_intermediate_size")
    latent = f.count("routed_expert_hidden_size", b.hidden)
    shared = f.count("num_shared_experts", 0, low=0) * width
    with t.scope("mlp."):
        t.linear("gate", b.hidden, count, role=Role.ROUTER)
        t.add("experts.gate_up_proj", (count, 2 * width, latent), Role.EXPERT)
        t.add("experts.down_proj", (count, latent, width), Role.EXPERT)
        if latent != b.hidden:
            t.linear("fc1_latent_proj", b.hidden, latent)
            t.linear("fc2_latent_proj", latent, b.hidden)
        if shared:
            gated(b, width=shared, scope="shared_experts.")
    top_k = f.count("num_experts_per_token")
    return MoEFFN(count, top_k, width, shared, True, activation(f))


def kimi_k3(f: Fields, t: Tensors) -> Decoder:
    """Kimi K3's text model. Its code is not in transformers: its fields' names are all there is."""
    text = section(f, "text_config", "kimi_linear")
    f.note(
        "Kimi K3 is read by the names of its fields; its vision tower, its residual attention and "
        "the shapes of its gates are not known"
    )
    decoder = text_decoder(text, t, K3)
    return replace(decoder, bounds=(tower_bounds(f, t),))


def mllama_kinds(f: Fields, layers: int) -> Sequence[str]:
    cross = f.counts("cross_attention_layers")
    if cross is None:
        cross = tuple(range(3, layers, 5))
        f.note(f"{f.path}cross_attention_layers is not in the config: taken as 3, 8, 13, …")
    return ["cross" if i in cross else FULL for i in range(layers)]


def mllama_attention(b: Block, kind: str) -> Attention | tuple[Attention, ...]:
    """Llama 3.2 Vision: some layers look at the image's tokens alone and cache no text."""
    if kind == FULL:
        return gqa(b, kind)
    for gate in ("cross_attn_attn_gate", "cross_attn_mlp_gate"):
        b.t.add(gate, (1,), Role.OTHER)
    gqa(b, FULL, qk_norm="head", scope="cross_attn.")
    return ()


def mllama(f: Fields, t: Tensors) -> Decoder:
    text = section(f, "text_config", "mllama_text_model")
    f.note("only the text model of mllama is described; images add keys to its cross-attention")
    decoder = text_decoder(text, t, MLLAMA, prefix="model.language_model.")
    return replace(decoder, bounds=(tower_bounds(f, t),))


def phi4mm(f: Fields, t: Tensors) -> Decoder:
    """Phi-4-multimodal: Phi-3's decoder; its image and speech encoders are not described."""
    f.note(f"only the text model of {f.kind} is described: its other towers are not")
    decoder = text_decoder(f, t, PHI3)
    return replace(decoder, bounds=(tower_bounds(f, t),))


MLLAMA = Style(attention=mllama_attention, ffn=gated, kinds=mllama_kinds, embed_extra=8)
PHI3 = KNOWN["phi3"]
K3 = Style(attention=k3_mixer, ffn=k3_ffn, kinds=kimi_kinds, ffn_kinds=kimi_ffn_kinds)
STYLES: dict[str, Style] = {
    "mllama_text_model": MLLAMA,
    "step3p5": Style(
        attention=step_attention, ffn=step_ffn, kinds=step_kinds, ffn_kinds=step_ffn_kinds
    ),
    "minimax_m3_vl_text": Style(
        attention=m3_attention, ffn=m3_ffn, kinds=m3_kinds, ffn_kinds=m3_ffn_kinds
    ),
}
READERS = {"mllama": mllama, "kimi_k3": kimi_k3, "phi4mm": phi4mm, "phi4_multimodal": phi4mm}
