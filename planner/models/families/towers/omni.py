"""Towers of omni models, and of MiniCPM-V, LightOn, Qianfan and Ovis."""

from functools import partial

from ...config_fields import Fields
from ...spec import Role
from ...tensor_list import Tensors
from .vision import encoder_layers, patches, qwen3_vision, qwen25_vision
from .vision_recent import internvit, pair


def minicpm(f: Fields, t: Tensors) -> None:
    """MiniCPM-V 4.6 and 4.7: SigLIP without its head, and a merger among its layers."""
    width, inner = f.count("hidden_size"), f.count("intermediate_size")
    channels, patch = patches(f)
    side = f.count("image_size") // patch
    rows, columns = pair(f, "window_kernel_size")
    merged = rows * columns
    t.add("embeddings.patch_embedding.weight", (width, channels, patch, patch), Role.CONV)
    t.add("embeddings.patch_embedding.bias", (width,), Role.BIAS)
    t.embedding("embeddings.position_embedding", side * side, width)
    encoder_layers(t, "encoder.layers.*.", f.layers(), width, inner)
    t.norm("post_layernorm", width, True)
    with t.scope("vit_merger."):
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            t.linear(f"self_attn.{name}", width, width, True)
        t.norm("layer_norm1", width, True)
        t.norm("pre_norm", merged * width, True)
        t.linear("linear_1", merged * width, merged * inner, True)
        t.linear("linear_2", merged * inner, width, True)


def minicpm_merger(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    """Rounds of merging, each but the last back to the tower's width."""
    rows, columns = pair(f, "merge_kernel_size")
    width, out = v.count("hidden_size"), text.count("hidden_size")
    merged, times = rows * columns * width, f.count("merger_times", 1, high=16)
    for i in range(times):
        t.norm("mlp.*.pre_norm", merged, True)
        t.linear("mlp.*.linear_1", merged, merged, True)
        t.linear("mlp.*.linear_2", merged, out if i == times - 1 else width, True)


def qianfan(f: Fields, t: Tensors) -> None:
    """InternViT as Qianfan-OCR names it."""
    internvit(f, t, "layers.*.", default=True)


def lighton_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    width, merge, out = (
        v.count("hidden_size"),
        f.count("spatial_merge_size"),
        text.count("hidden_size"),
    )
    t.norm("norm", width)
    t.linear("patch_merger.merging_layer", width * merge * merge, width)
    t.linear("linear_1", width, out)
    t.linear("linear_2", out, out)


omni_vision = partial(qwen25_vision, apart=True)
omni3_vision = partial(qwen3_vision, omni=True)


def omni_audio(f: Fields, t: Tensors) -> None:
    """Qwen2.5-Omni: Whisper's layers over chunks, without learned positions."""
    width, bins, out = f.count("d_model"), f.count("num_mel_bins"), f.count("output_dim")
    for name, inputs in (("conv1", bins), ("conv2", width)):
        t.add(f"{name}.weight", (width, inputs, 3), Role.CONV)
        t.add(f"{name}.bias", (width,), Role.BIAS)
    t.embedding("audio_bos_eos_token", 2, out)
    _audio_layers(f, t, key_bias=False)
    t.linear("proj", width, out, True)


def omni3_audio(f: Fields, t: Tensors) -> None:
    """Qwen3-Omni: the spectrogram thrice halved in both axes, then plain layers."""
    width, bins, narrow = (
        f.count(name) for name in ("d_model", "num_mel_bins", "downsample_hidden_size")
    )
    for name, inputs in (("conv2d1", 1), ("conv2d2", narrow), ("conv2d3", narrow)):
        t.add(f"{name}.weight", (narrow, inputs, 3, 3), Role.CONV)
        t.add(f"{name}.bias", (narrow,), Role.BIAS)
        bins = (bins + 1) // 2
    t.linear("conv_out", narrow * bins, width)
    _audio_layers(f, t, key_bias=True)
    t.linear("proj1", width, width, True)
    t.linear("proj2", width, f.count("output_dim"), True)


def _audio_layers(f: Fields, t: Tensors, key_bias: bool) -> None:
    width = f.count("d_model")
    encoder_layers(
        t,
        "layers.*.",
        f.layers("encoder_layers"),
        width,
        f.count("encoder_ffn_dim"),
        norms=("self_attn_layer_norm", "final_layer_norm"),
        mlp=("fc1", "fc2"),
        key_bias=key_bias,
    )
    t.norm("ln_post", width, True)


def muse_audio(f: Fields, t: Tensors) -> None:
    """Muse Spark: stages of separable convolutions over frames of sound, ever wider."""
    sizes, depths = f.counts("hidden_sizes", low=1) or (), f.counts("depths") or ()
    frames = f.counts("patch_sizes", len(sizes), low=1) or ()
    ratio = f.number("mlp_ratio") or 4.0
    kernel, inputs = f.count("conv_kernel_size"), 1
    for width, depth, frame in zip(sizes, depths, frames, strict=True):
        with t.scope("layers.*."):
            t.linear("patch_embedder.proj", inputs * frame, width, True)
            t.norm("patch_embedder.norm", width)
            with t.scope("conv_blocks.*.", depth):
                t.add("conv.weight", (width, 1, kernel), Role.CONV)
                t.add("conv.bias", (width,), Role.BIAS)
                t.norm("norm", width)
                t.linear("mlp.fc1", width, int(width * ratio), True)
                t.linear("mlp.fc2", int(width * ratio), width, True)
        inputs = width
    out = f.count("out_hidden_size")
    t.norm("norm", inputs)
    t.linear("proj", inputs, out, True)
    t.norm("post_proj_norm", out)


def ovis(f: Fields, t: Tensors) -> None:
    """Ovis 2: an encoder whose head chooses among visual words."""
    width, inner = f.count("hidden_size"), f.count("intermediate_size")
    channels, patch = patches(f)
    side = f.count("image_size") // patch
    with t.scope("transformer."):
        t.add("embeddings.patch_embedding.weight", (width, channels, patch, patch), Role.CONV)
        t.add("embeddings.patch_embedding.bias", (width,), Role.BIAS)
        t.embedding("embeddings.position_embedding", side * side, width)
        t.norm("embeddings.rms_norm", width)
        encoder_layers(
            t,
            "encoder.layers.*.",
            f.layers(),
            width,
            inner,
            attention="attention.",
            norms=("rms_norm1", "rms_norm2"),
            norm_bias=False,
            mlp=("ffn.gate_proj", "ffn.up_proj", "ffn.down_proj"),
            bias=f.flag("qkv_bias"),
            mlp_bias=f.flag("mlp_bias"),
        )
        t.norm("rms_norm", width)
    words = f.count("vocab_size") - f.count("num_visual_indicator_tokens", 5)
    merged = width * f.count("hidden_stride") ** 2
    t.linear("head_linear", merged, words)
    t.norm("head_norm", words, True)


def ovis_words(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    t.embedding("visual_embeddings_table", v.count("vocab_size"), f.count("hidden_size"))
