"""Nemotron-H and Nemotron 3: every block is one of Mamba-2, attention, an FFN or experts."""

from ...config_fields import MAX_LAYERS, Fields
from ...spec import FFN, DenseFFN, Mixer, MoEFFN, Role
from ..blocks.attention import gqa
from ..blocks.ffn import plain
from ..blocks.layer_types import LINEAR
from ..blocks.recurrent import mamba2
from ..decoder import LEGACY_LAYER_TYPES, Block, Style

NEMOTRON_LETTERS = {"M": LINEAR, "E": "moe", "*": "full_attention", "-": "mlp"}


def nemotron_blocks(f: Fields) -> list[str]:
    """Nemotron-H's blocks: a list, or a pattern of letters."""
    listed = f.texts("layers_block_type") or f.texts("layer_types")
    if listed is None:
        pattern = f.text("hybrid_override_pattern")
        if pattern is None:
            f.note("no pattern of blocks is in the config: taken as transformers' default, ME*-")
            pattern = "ME*-"
        listed = tuple(NEMOTRON_LETTERS.get(letter, letter) for letter in pattern)
    kinds = [LEGACY_LAYER_TYPES.get(kind, kind) for kind in listed]
    unknown = set(kinds) - set(NEMOTRON_LETTERS.values())
    if not kinds or unknown or len(kinds) > MAX_LAYERS:
        names = ("layers_block_type", "layer_types", "hybrid_override_pattern")
        name = next((name for name in names if f.has(name)), names[-1])
        raise f.wrong(
            name, f.raw.get(name), "a pattern of the letters M, E, * and -, or their kinds"
        )
    return kinds


def nemotron_mixer(b: Block, kind: str) -> Mixer | tuple[Mixer, ...]:
    """Attention or Mamba-2; none in a block that is an FFN."""
    f = b.f
    if kind == "full_attention":
        return gqa(b, kind, scope="mixer.")
    if kind != LINEAR:
        return ()
    return mamba2(
        b,
        heads=f.count("mamba_num_heads"),
        head_dim=f.count("mamba_head_dim"),
        groups=f.count("mamba_n_groups" if f.has("mamba_n_groups") else "n_groups"),
        state=f.count("ssm_state_size"),
        kernel=f.count("mamba_d_conv" if f.has("mamba_d_conv") else "conv_kernel"),
        conv_bias=f.flag("mamba_conv_bias" if f.has("mamba_conv_bias") else "use_conv_bias"),
        bias=f.flag("use_bias"),
        scope="mixer.",
    )


def nemotron_ffn(b: Block, kind: str) -> FFN | None:
    """A block of its own: relu-squared MLP, or experts of the same shape, maybe in a latent."""
    f, t = b.f, b.t
    act = f.text("mlp_hidden_act") or "relu2"
    bias = f.flag("mlp_bias")
    if kind == "mlp":
        width = f.count("intermediate_size")
        plain(b, width=width, bias=bias, names=("up_proj", "down_proj"), scope="mixer.")
        return DenseFFN(width, False, act)
    if kind != "moe":
        return None
    count, width = f.count("n_routed_experts"), f.count("moe_intermediate_size")
    shared = f.count("moe_shared_expert_intermediate_size")
    latent = f.optional_count("moe_latent_size")
    with t.scope("mixer."):
        t.add("experts.up_proj", (count, width, latent or b.hidden), Role.EXPERT)
        t.add("experts.down_proj", (count, latent or b.hidden, width), Role.EXPERT)
        t.linear("gate", b.hidden, count, role=Role.ROUTER)
        plain(b, width=shared, bias=bias, names=("up_proj", "down_proj"), scope="shared_experts.")
        if latent:
            t.linear("fc1_latent_proj", b.hidden, latent, bias)
            t.linear("fc2_latent_proj", latent, b.hidden, bias)
    return MoEFFN(count, f.count("num_experts_per_tok"), width, shared, False, act)


STYLES: dict[str, Style] = {
    "nemotron_h": Style(
        attention=nemotron_mixer,
        ffn=nemotron_ffn,
        count=lambda f: len(nemotron_blocks(f)),
        kinds=lambda f, layers: nemotron_blocks(f),
        ffn_kinds=lambda f, layers: nemotron_blocks(f),
        norms=("norm",),
        embed="embeddings",
        final_norm="norm_f",
        ties=False,
    ),
}
