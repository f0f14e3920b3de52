"""DeepEncoder, the vision tower of DeepSeek-OCR and Unlimited-OCR: SAM's encoder, then CLIP's.

SAM sees patches at full resolution, most of its layers within windows; convolutions compress its
output sixteenfold, and CLIP's layers, which skip its own patches, read that.
"""

from collections.abc import Mapping

from ...config_fields import Fields
from ...spec import Part, Role
from ...tensor_list import Tensors
from .vision import encoder_layers, patches


def sam(
    t: Tensors,
    *,
    width: int,
    inner: int,
    layers: int,
    heads: int,
    side: int,
    patch: int,
    channels: int,
    window: int,
    full: tuple[int, ...],
    out: int,
    down: tuple[int, ...],
) -> None:
    """SAM's image encoder over `side` x `side` patches, its neck, and the compressor."""
    t.add("pos_embed", (1, side, side, width), Role.EMBEDDING)
    t.add("patch_embed.projection.weight", (width, channels, patch, patch), Role.CONV)
    t.add("patch_embed.projection.bias", (width,), Role.BIAS)
    encoder_layers(
        t,
        "layers.*.",
        layers,
        width,
        inner,
        attention="attn.",
        names=("", "", "", "proj"),
        fused="qkv",
        norms=("layer_norm1", "layer_norm2"),
        mlp=("mlp.lin1", "mlp.lin2"),
    )
    wide = sum(1 for at in full if at < layers)
    for times, reach in ((wide, side), (layers - wide, window)):
        with t.scope("layers.*.attn.", times):
            for name in ("rel_pos_h", "rel_pos_w"):
                t.add(name, (2 * reach - 1, width // heads), Role.OTHER)
    t.add("neck.conv1.weight", (out, width, 1, 1), Role.CONV)
    t.norm("neck.layer_norm1", out, True)
    t.add("neck.conv2.weight", (out, out, 3, 3), Role.CONV)
    t.norm("neck.layer_norm2", out, True)
    for i, (inputs, outputs) in enumerate(zip((out, *down), down, strict=False)):
        t.add(f"proj.conv{i + 1}.weight", (outputs, inputs, 3, 3), Role.CONV)


def clip_of_features(t: Tensors, width: int, inner: int, layers: int, positions: int) -> None:
    """CLIP's layers without its patches."""
    t.add("embeddings.class_embedding", (width,), Role.OTHER)
    t.embedding("embeddings.position_embedding", positions, width)
    t.norm("pre_layrnorm", width, True)
    encoder_layers(t, "encoder.layers.*.", layers, width, inner)


def deep_encoder(f: Fields, t: Tensors) -> None:
    """Unlimited-OCR's, from its two sections."""
    c = _section(f, "encoder_config")
    _sam_section(f, t)
    with t.scope("vision_encoder."):
        side = c.count("image_size") // c.count("patch_size")
        width = c.count("hidden_size")
        clip_of_features(t, width, c.count("intermediate_size"), c.layers(), side * side + 1)


def deep_encoder_2(f: Fields, t: Tensors) -> None:
    """DeepSeek-OCR 2's: a Qwen2 without its embeddings in CLIP's place, and learned queries."""
    c = _section(f, "encoder_config")
    _sam_section(f, t)
    width, inner = c.count("hidden_size"), c.count("intermediate_size")
    heads = c.count("num_attention_heads")
    narrow = c.count("num_key_value_heads", heads) * (width // heads)
    with t.scope("vision_encoder.layers.*.", c.layers()):
        t.linear("self_attn.q_proj", width, width, True)
        t.linear("self_attn.k_proj", width, narrow, True)
        t.linear("self_attn.v_proj", width, narrow, True)
        t.linear("self_attn.o_proj", width, width)
        t.linear("mlp.gate_proj", width, inner)
        t.linear("mlp.up_proj", width, inner)
        t.linear("mlp.down_proj", inner, width)
        t.norm("input_layernorm", width)
        t.norm("post_attention_layernorm", width)
    t.norm("vision_encoder.norm", width)
    for side in (768, 1024):  # one query for each cell of 64 pixels of a view
        t.embedding(f"query_{side}_resolution", (side // 64) ** 2, width)


def _section(f: Fields, name: str) -> Fields:
    return Fields(f.mapping(name) or {}, kind=f.kind, path=f"{f.path}{name}.", notes=f.notes)


def _sam_section(f: Fields, t: Tensors) -> None:
    s = _section(f, "sam_config")
    channels, patch = patches(s)
    with t.scope("sam_encoder."):
        sam(
            t,
            width=s.count("hidden_size"),
            inner=s.count("mlp_dim", 4 * s.count("hidden_size")),
            layers=s.layers(),
            heads=s.count("num_attention_heads"),
            side=s.count("image_size") // patch,
            patch=patch,
            channels=channels,
            window=s.count("window_size"),
            full=s.counts("global_attn_indexes") or (),
            out=s.count("output_channels"),
            down=s.counts("downsample_channels", low=1) or (),
        )


def deepseek_ocr_towers(f: Fields, t: Tensors) -> bool:
    """DeepSeek-OCR's towers, where the config is one; False for another vision tower.

    The file says widths, layers and heads; what it leaves out (SAM's window of 14, its neck of 256
    channels, FFNs of four widths) is fixed in its code.
    """
    vision = f.mapping("vision_config") or {}
    sizes = vision.get("width")
    if not isinstance(sizes, Mapping) or not {"clip-l-14-224", "sam_vit_b"} <= set(sizes):
        return False
    towers = Fields(sizes, path=f"{f.path}vision_config.width.", notes=f.notes)
    c, s = _section(towers, "clip-l-14-224"), _section(towers, "sam_vit_b")
    image = Fields(vision, path=f"{f.path}vision_config.").count("image_size")
    projector = Fields(f.mapping("projector_config") or {}, path=f"{f.path}projector_config.")
    width = s.count("width")
    with t.scope("model.sam_model.", part=Part.VISION):
        sam(
            t,
            width=width,
            inner=4 * width,
            layers=s.count("layers"),
            heads=s.count("heads"),
            side=image // 16,
            patch=16,
            channels=3,
            window=14,
            full=s.counts("global_attn_indexes") or (),
            out=256,
            down=s.counts("downsample_channels", low=1) or (),
        )
    with t.scope("model.vision_model.", part=Part.VISION):
        width = c.count("width")
        side = c.count("image_size") // c.count("patch_size")
        clip_of_features(t, width, 4 * width, c.count("layers"), side * side + 1)
        # Its patch convolution is stored although SAM's output takes its place.
        patch = c.count("patch_size")
        t.add("embeddings.patch_embedding.weight", (width, 3, patch, patch), Role.CONV)
    out = projector.count("n_embed")
    with t.scope("model.", part=Part.PROJECTOR):
        t.linear("projector.layers", projector.count("input_dim"), out, True)
        t.add("image_newline", (out,), Role.OTHER)
        t.add("view_seperator", (out,), Role.OTHER)
    return True
