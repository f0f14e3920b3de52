"""Connectors that read patches by attention: Idefics 2's perceiver and Aria's queries."""

from ...config_fields import Fields
from ...spec import Role
from ...tensor_list import Tensors


def idefics2_connector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    """A gated projection, then layers by which a few latents read all patches."""
    p = Fields(
        f.mapping("perceiver_config") or {},
        kind="idefics2_perceiver",
        path="perceiver_config.",
        defaults=_PERCEIVER,
        notes=f.notes,
    )
    seen, width = v.count("hidden_size"), text.count("hidden_size")
    middle = text.count("intermediate_size")
    with t.scope("modality_projection."):
        t.linear("gate_proj", seen, middle)
        t.linear("up_proj", seen, middle)
        t.linear("down_proj", middle, width)
    width = p.count("hidden_size")
    heads, kv = p.count("resampler_n_heads"), p.count("num_key_value_heads")
    dim = p.count("resampler_head_dim")
    t.add("perceiver_resampler.latents", (p.count("resampler_n_latents"), width), Role.OTHER)
    with t.scope("perceiver_resampler.layers.*.", p.layers("resampler_depth")):
        for name in ("input_latents_norm", "input_context_norm", "post_attention_layernorm"):
            t.norm(name, width)
        t.linear("self_attn.q_proj", width, heads * dim)
        t.linear("self_attn.k_proj", width, kv * dim)
        t.linear("self_attn.v_proj", width, kv * dim)
        t.linear("self_attn.o_proj", heads * dim, width)
        t.linear("mlp.gate_proj", width, 4 * width)
        t.linear("mlp.up_proj", width, 4 * width)
        t.linear("mlp.down_proj", 4 * width, width)
    t.norm("perceiver_resampler.norm", width)


_PERCEIVER = {
    "hidden_size": 4096,
    "resampler_n_latents": 64,
    "resampler_depth": 3,
    "resampler_n_heads": 16,
    "resampler_head_dim": 96,
    "num_key_value_heads": 4,
}


def aria_projector(f: Fields, v: Fields, text: Fields, t: Tensors) -> None:
    """Learned queries read the patches by one cross attention."""
    width, out = v.count("hidden_size"), text.count("hidden_size")
    given = f.mapping("projector_patch_to_query_dict") or {"1225": 128, "4900": 256}
    most = max((n for n in given.values() if isinstance(n, int)), default=256)
    t.add("query", (most, width), Role.OTHER)
    with t.scope("cross_attn."):
        for name in ("q_proj", "k_proj", "v_proj"):
            t.linear(name, width, width)
        t.add("multihead_attn.in_proj_weight", (3 * width, width), Role.LINEAR)
        t.add("multihead_attn.in_proj_bias", (3 * width,), Role.BIAS)
        t.linear("multihead_attn.out_proj", width, width, True)
        t.linear("linear", width, width, True)
        t.norm("layer_norm", width, True)
        t.norm("layer_norm_kv", width, True)
    t.norm("layer_norm", width, True)
    t.linear("feed_forward.linear_in", width, out)
    t.linear("feed_forward.linear_out", out, out)
