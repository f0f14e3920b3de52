"""Feed-forward blocks: dense, gated or plain, and mixtures of experts, in many spellings."""

from collections.abc import Callable, Sequence

from ...config_fields import Fields
from ...spec import DenseFFN, MoEFFN, Role
from ..decoder import Block
from .attention import flag_of


def activation(f: Fields) -> str:
    return f.text("hidden_act") or f.text("hidden_activation") or f.text("activation") or "silu"


def gated(
    b: Block,
    kind: str = "dense",
    *,
    width: int | str = "intermediate_size",
    bias: bool | str = False,
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
    fused: str = "",
    scope: str = "mlp.",
) -> DenseFFN:
    """down(act(gate(x)) * up(x)); `fused`: one projection holds gate and up."""
    inner = b.f.count(width) if isinstance(width, str) else width
    has_bias = flag_of(b.f, bias)
    with b.t.scope(scope):
        if fused:
            b.t.linear(fused, b.hidden, 2 * inner, has_bias)
        else:
            b.t.linear(names[0], b.hidden, inner, has_bias)
            b.t.linear(names[1], b.hidden, inner, has_bias)
        b.t.linear(names[2], inner, b.hidden, has_bias)
    return DenseFFN(inner, True, activation(b.f))


def plain(
    b: Block,
    kind: str = "dense",
    *,
    width: int | str = "intermediate_size",
    bias: bool | str = True,
    names: tuple[str, str] = ("fc1", "fc2"),
    scope: str = "mlp.",
) -> DenseFFN:
    """down(act(up(x)))."""
    inner = b.f.count(width) if isinstance(width, str) else width
    has_bias = flag_of(b.f, bias)
    with b.t.scope(scope):
        b.t.linear(names[0], b.hidden, inner, has_bias)
        b.t.linear(names[1], inner, b.hidden, has_bias)
    return DenseFFN(inner, False, activation(b.f))


def experts(b: Block, count: int, width: int, scope: str = "experts.") -> None:
    """Gated experts stacked in two tensors."""
    with b.t.scope(scope):
        b.t.add("gate_up_proj", (count, 2 * width, b.hidden), Role.EXPERT)
        b.t.add("down_proj", (count, b.hidden, width), Role.EXPERT)


def moe(
    b: Block,
    kind: str = "moe",
    *,
    experts_field: str = "num_experts",
    width: str = "moe_intermediate_size",
    router: str = "gate",
    shared: str = "",
    shared_width: int | str = 0,
    shared_gate: str = "",
    shared_bias: bool | str = False,
    scope: str = "mlp.",
    extra: Callable[[Block, int], None] | None = None,
) -> MoEFFN:
    """Routed experts, and a gated expert every token uses where `shared` names one.

    `shared_width` is a number, or the field that holds it. `shared_gate` names the projection
    that scales the shared expert. `extra` adds what a family has beside (a router's correction
    bias), given the number of experts.
    """
    f, t = b.f, b.t
    count, inner = f.count(experts_field), f.count(width)
    common = f.count(shared_width, low=0) if isinstance(shared_width, str) else shared_width
    with t.scope(scope):
        t.linear(router, b.hidden, count, role=Role.ROUTER)
        if extra:
            extra(b, count)
        experts(b, count, inner)
        if shared and common:
            gated(b, width=common, bias=shared_bias, scope=f"{shared}.")
        if shared_gate:
            t.linear(shared_gate, b.hidden, 1, role=Role.ROUTER)
    return MoEFFN(
        experts=count,
        top_k=f.count("num_experts_per_tok"),
        width=inner,
        shared_width=common if shared else 0,
        activation=activation(f),
    )


def dense_or_moe(
    dense: Callable[..., DenseFFN], sparse: Callable[..., MoEFFN]
) -> Callable[[Block, str], DenseFFN | MoEFFN]:
    """Choose by the FFN kind of a layer."""

    def build(b: Block, kind: str) -> DenseFFN | MoEFFN:
        return sparse(b, kind) if kind in ("moe", "sparse") else dense(b, kind)

    return build


def first_dense(f: Fields, layers: int, field: str = "first_k_dense_replace") -> Sequence[str]:
    """DeepSeek's pattern: the first layers dense, the others sparse."""
    dense = f.count(field, 0, low=0)
    return ["dense" if i < dense else "moe" for i in range(layers)]


def stepped(f: Fields, layers: int) -> Sequence[str]:
    """Qwen's pattern: every `decoder_sparse_step`-th layer sparse, except those listed."""
    step = f.count("decoder_sparse_step", 1)
    dense = set(f.counts("mlp_only_layers") or ())
    some = f.count("num_experts", 0, low=0) > 0
    return [
        "moe" if some and i not in dense and (i + 1) % step == 0 else "dense" for i in range(layers)
    ]
