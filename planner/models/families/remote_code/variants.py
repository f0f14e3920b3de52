"""Further families with code of their own: MiMo, Nemotron-NAS, RWKV-5, Phi-3-vision."""

from collections.abc import Mapping
from typing import Any

from ...config_fields import Fields
from ...spec import Attention, DenseFFN, Layer, Part, RecurrentState, Role
from ...tensor_list import Tensors
from ..blocks.attention import gqa
from ..blocks.ffn import gated
from ..decoder import Block, Decoder, Style, build_layers, max_context, text_decoder
from ..hybrids.state_space import RWKV, channel_mixing
from ..llama import QWEN2
from ..llama import STYLES as KNOWN
from ..towers.vision import clip


def mimo(f: Fields, t: Tensors) -> Decoder:
    """MiMo-7B: Qwen2 and layers that predict further tokens."""
    decoder = text_decoder(f, t, QWEN2)
    b = Block(f, t, decoder.hidden)
    extra = f.count("num_nextn_predict_layers", 0, low=0, high=64)
    with t.scope("model.mtp_layers.*.", extra, Part.MTP):
        QWEN2.attention(b, "full_attention")
        QWEN2.ffn(b, "dense")
        for name in (
            "input_layernorm",
            "post_attention_layernorm",
            "token_layernorm",
            "hidden_layernorm",
            "final_layernorm",
        ):
            t.norm(name, decoder.hidden)
        t.linear("input_proj", 2 * decoder.hidden, decoder.hidden)
    return decoder


def nemotron_nas(f: Fields, t: Tensors) -> Decoder:
    """DeciLM / Nemotron-NAS: every layer's attention and FFN searched for, some dropped."""
    blocks = f.raw.get("block_configs")
    if not isinstance(blocks, list) or not all(isinstance(x, dict) for x in blocks):
        raise (
            f.missing("block_configs")
            if blocks is None
            else f.wrong("block_configs", blocks, "a list of objects, one for each layer")
        )
    hidden, vocab, layers = f.count("hidden_size"), f.count("vocab_size"), f.layers()
    if len(blocks) != layers:
        raise f.wrong("block_configs", len(blocks), f"a list of {layers}, one for each layer")
    b = Block(f, t, hidden)
    kinds = [_nas_kind(f, block, i) for i, block in enumerate(blocks)]

    def layer(kind: tuple[str, int, str, int]) -> Layer:
        attention, group, ffn, width = kind
        mixers: tuple[Attention, ...] = ()
        if attention != "none":
            t.norm("input_layernorm", hidden)
        if attention == "linear":
            t.linear("self_attn.linear_attn", hidden, hidden)
        elif attention == "full":
            query = f.count("num_attention_heads")
            own = f.changed(num_key_value_heads=max(1, query // group))
            mixers = (gqa(Block(own, t, hidden), "full_attention", bias="attention_bias"),)
        if ffn != "none":
            t.norm("post_attention_layernorm", hidden)
        if ffn == "linear":
            t.linear("mlp.linear_mlp", hidden, hidden)
            return Layer(mixers, DenseFFN(hidden, False, "none"))
        return Layer(mixers, gated(b, width=width, bias="mlp_bias") if ffn == "full" else None)

    with t.scope("model."):
        t.embedding("embed_tokens", vocab, hidden)
        built = build_layers(t, "layers.*.", kinds, layer)
        t.norm("norm", hidden)
    tied = f.flag("tie_word_embeddings")
    if not tied:
        t.head("lm_head", hidden, vocab)
    return Decoder(hidden, vocab, max_context(f), built, tied)


def _nas_kind(f: Fields, block: Mapping[str, Any], index: int) -> tuple[str, int, str, int]:
    """(attention, query heads for each KV head, FFN, FFN width) of one block."""
    parts = []
    for name in ("attention", "ffn"):
        raw = block.get(name)
        if not isinstance(raw, dict):
            raise f.missing(f"block_configs[{index}].{name}")
        parts.append(
            Fields(raw, kind=f.kind, path=f"block_configs[{index}].{name}.", notes=f.notes)
        )
    words = [
        "none" if p.flag("no_op") else "linear" if p.flag("replace_with_linear") else "full"
        for p in parts
    ]
    group = parts[0].count("n_heads_in_group") if words[0] == "full" else 0
    width = 0
    if words[1] == "full":
        multiple = parts[1].number("ffn_mult")
        if multiple is None:
            width = parts[1].count("intermediate_size")
        elif not 0 < multiple <= 1000:
            raise parts[1].wrong("ffn_mult", multiple, "a factor")
        else:
            width = -(-int(2 * multiple * f.count("hidden_size") / 3) // 256) * 256
    return words[0], group, words[1], width


def phi3_v(f: Fields, t: Tensors) -> Decoder:
    """Phi-3-vision: CLIP ViT-L/14-336 and a projector of 2x2 patches, beside Phi-3."""
    processor = f.mapping("img_processor") or {}
    if processor.get("name") == "clip_vision_model":
        prefix = "model.vision_embed_tokens."
        vit = Fields(
            {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_channels": 3,
                "patch_size": 14,
                "image_size": 336,
                "num_hidden_layers": 24,
            }
        )
        width = f.count("hidden_size")
        with t.scope(prefix, part=Part.PROJECTOR):
            t.add("glb_GN", (1, 1, 4096), Role.OTHER)
            t.add("sub_GN", (1, 1, 1, 4096), Role.OTHER)
            t.linear("img_projection.*", 4096, width, True)
            t.linear("img_projection.*", width, width, True)
        with t.scope(prefix + "img_processor.vision_model.", part=Part.VISION):
            clip(vit, t)
    else:
        f.note("the image processor is not the CLIP that is known: its weights are not counted")
    return text_decoder(f, t, KNOWN["phi3"])


def rwkv5_mixer(b: Block, kind: str) -> RecurrentState:
    """RWKV-5: one matrix of head_size squared for each head, in float32."""
    f, t = b.f, b.t
    size = f.count("head_size", 64)
    width = f.count("attention_hidden_size", b.hidden)
    if width % size:
        raise f.wrong("head_size", size, f"a divisor of {width}")
    count = width // size
    with t.scope("attention."):
        for name in ("time_decay", "time_faaaa"):
            t.add(name, (count, size), Role.OTHER)
        for name in ("gate", "key", "value", "receptance"):
            t.add(f"time_mix_{name}", (1, 1, b.hidden), Role.OTHER)
            t.linear(name, b.hidden, width)
        t.linear("output", width, b.hidden)
        t.norm("ln_x", width, True)
    return RecurrentState(
        "rwkv",
        state=count * size * size,
        conv=2 * b.hidden,
        heads=count,
        key_dim=size,
        value_dim=size,
        width=4 * width,
        state_dtype="float32",
    )


def rwkv5_ffn(b: Block, kind: str) -> DenseFFN:
    default = max(32, int(b.hidden * 3.5) // 32 * 32)
    return channel_mixing(b, b.f.count("intermediate_size", default))


STYLES: dict[str, Style] = {
    "rwkv5": RWKV.but(attention=rwkv5_mixer, ffn=rwkv5_ffn),
}
READERS = {
    "mimo": mimo,
    "nemotron-nas": nemotron_nas,
    "deci": nemotron_nas,
    "phi3_v": phi3_v,
}
