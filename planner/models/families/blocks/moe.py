"""Mixture-of-experts blocks that differ from the common one in names, biases or shapes."""

from collections.abc import Callable

from ...config_fields import Fields
from ...spec import FFN, DenseFFN, MoEFFN, Role
from ..decoder import Block
from .ffn import activation, experts, gated, moe

Extra = Callable[[Block, int], None]


def shared_of(f: Fields, count: str = "n_shared_experts") -> int:
    """Summed width of the shared experts."""
    return f.count("moe_intermediate_size") * f.count(count, 0, low=0)


def correction_bias(name: str, shape_rank: int = 1) -> Extra:
    """A router's correction bias that transformers keeps as a parameter."""

    def add(b: Block, count: int) -> None:
        b.t.add(name, (1,) * (shape_rank - 1) + (count,), Role.OTHER)

    return add


def routed(b: Block, kind: str, *, bias: bool | str = False) -> MoEFFN:
    """DeepSeek's: routed experts and shared ones as one wide gated FFN."""
    return moe(
        b,
        experts_field="n_routed_experts",
        shared="shared_experts",
        shared_width=shared_of(b.f),
        shared_bias=bias,
    )


def afmoe_ffn(b: Block, kind: str) -> MoEFFN:
    return moe(
        b,
        router="router.gate",
        shared="shared_experts",
        shared_width=shared_of(b.f, "num_shared_experts"),
        extra=correction_bias("expert_bias"),
    )


def ernie_ffn(b: Block, kind: str) -> MoEFFN:
    bias = b.f.flag("use_bias")
    shared = b.f.count("moe_num_shared_experts", 0, low=0) * b.f.count("moe_intermediate_size")
    routed = moe(
        b,
        shared="shared_experts",
        shared_width=0,
        extra=correction_bias("gate.moe_statics.e_score_correction_bias", 2),
    )
    if shared:
        gated(b, width=shared, bias=bias, scope="mlp.shared_experts.")
    return MoEFFN(routed.experts, routed.top_k, routed.width, shared, True, routed.activation)


def gpt_oss_ffn(b: Block, kind: str) -> MoEFFN:
    """Experts with biases, their matrices stored (in, out)."""
    count, width = b.f.count("num_local_experts"), b.f.count("intermediate_size")
    with b.t.scope("mlp."):
        b.t.linear("router", b.hidden, count, bias=True, role=Role.ROUTER)
        b.t.add("experts.gate_up_proj", (count, b.hidden, 2 * width), Role.EXPERT)
        b.t.add("experts.gate_up_proj_bias", (count, 2 * width), Role.BIAS)
        b.t.add("experts.down_proj", (count, width, b.hidden), Role.EXPERT)
        b.t.add("experts.down_proj_bias", (count, b.hidden), Role.BIAS)
    return MoEFFN(count, b.f.count("num_experts_per_tok"), width, activation="swiglu")


def granite_moe_ffn(b: Block, kind: str) -> FFN:
    """Granite's experts, and a dense branch beside them where `shared_intermediate_size` > 0."""
    shared = b.f.count("shared_intermediate_size", 0, low=0)
    count = b.f.count("num_local_experts", low=0)
    if shared:
        with b.t.scope("shared_mlp."):
            b.t.linear("input_linear", b.hidden, 2 * shared)
            b.t.linear("output_linear", shared, b.hidden)
    if not count:
        return DenseFFN(shared, True, activation(b.f))
    width = b.f.count("intermediate_size")
    with b.t.scope("block_sparse_moe."):
        b.t.linear("router", b.hidden, count, role=Role.ROUTER)
        experts(b, count, width)
    return MoEFFN(count, b.f.count("num_experts_per_tok"), width, shared, True, activation(b.f))


def per_layer(f: Fields, name: str) -> int:
    """A number that a config may give for each layer, if all agree."""
    given = f.raw.get(name)
    if isinstance(given, list):
        counts = f.counts(name, low=1) or (1,)
        if len(set(counts)) != 1:
            raise f.wrong(name, given, "the same number for every layer")
        return counts[0]
    return f.count(name)


def hunyuan_moe_ffn(b: Block, kind: str) -> MoEFFN:
    """Experts, and `num_shared_expert` of their width beside them as one."""
    f = b.f
    count, width = f.count("num_experts"), f.count("intermediate_size")
    top_k = per_layer(f, "moe_topk")
    with b.t.scope("mlp."):
        b.t.linear("gate.wg", b.hidden, count, role=Role.ROUTER)
        experts(b, count, width)
        shared = width * (per_layer(f, "num_shared_expert") if f.has("num_shared_expert") else 1)
        gated(b, width=shared, scope="shared_mlp.")
    return MoEFFN(count, top_k, width, shared, True, activation(f))
