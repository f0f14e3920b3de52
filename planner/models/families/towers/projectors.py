"""What joins a tower to the text model, in the shapes the families give it."""

from ...config_fields import Fields
from ...spec import Role
from ...tensor_list import Tensors


def llava_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    """Two linear layers from the vision width to the text width."""
    layers = f.raw.get("vision_feature_layer", f.defaults.get("vision_feature_layer", -2))
    times = len(layers) if isinstance(layers, list) else 1
    bias = f.flag("multimodal_projector_bias", True)
    width = text.count("hidden_size")
    t.linear("linear_1", times * v.count("hidden_size"), width, bias)
    t.linear("linear_2", width, width, bias)


def mistral3_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    """Mistral's: patches merged before the two linear layers."""
    width, merge = v.count("hidden_size"), f.count("spatial_merge_size")
    t.norm("norm", width)
    t.linear("patch_merger.merging_layer", width * merge * merge, width)
    llava_projector(f, v, text, t)


def gemma3_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    width = v.count("hidden_size")
    t.add("mm_input_projection_weight", (width, text.count("hidden_size")), Role.LINEAR)
    t.norm("mm_soft_emb_norm", width)


def paligemma_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    t.linear("linear", v.count("hidden_size"), f.count("projection_dim"), True)


def cohere_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    """Command A Vision and Aya Vision: pixels shuffled, then a gated pair of layers."""
    merged = v.count("hidden_size") * f.count("downsample_factor") ** 2
    width = text.count("hidden_size")
    middle = f.count("alignment_intermediate_size", width)
    if f.kind == "aya_vision":
        t.norm("layernorm", merged, True)
    t.linear("linear_1", merged, middle, True)
    t.linear("linear_2", middle // 2, width, True)


def internvl_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    ratio = f.number("downsample_ratio")
    if not ratio or not 0 < ratio <= 1:
        raise f.wrong("downsample_ratio", ratio, "a share")
    merged, width = v.count("hidden_size") * int(1 / ratio) ** 2, text.count("hidden_size")
    t.norm("layer_norm", merged, True)
    t.linear("linear_1", merged, width, True)
    t.linear("linear_2", width, width, True)


def lfm2_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    merged = v.count("hidden_size") * f.count("downsample_factor") ** 2
    middle, bias = f.count("projector_hidden_size"), f.flag("projector_bias", True)
    if f.flag("projector_use_layernorm", True):
        t.norm("layer_norm", merged, True)
    t.linear("linear_1", merged, middle, bias)
    t.linear("linear_2", middle, text.count("hidden_size"), bias)


def idefics_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    merged = v.count("hidden_size") * f.count("scale_factor") ** 2
    t.linear("modality_projection.proj", merged, text.count("hidden_size"))


def qwen2_audio_projector(f: Fields, a: Fields, text: Fields, t: Tensors) -> None:
    t.linear("linear", a.count("d_model"), text.count("hidden_size"), True)


def voxtral_projector(f: Fields, a: Fields, text: Fields, t: Tensors) -> None:
    width = text.count("hidden_size")
    t.linear("linear_1", a.count("intermediate_size"), width)
    t.linear("linear_2", width, width)
