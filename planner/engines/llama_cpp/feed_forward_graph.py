"""Feed-forward layers of llama.cpp's graph: dense, and routed to experts."""

from ...models.spec import DenseFFN, ModelSpec, MoEFFN
from .graph_allocator import Graph, Tensor
from .graph_nodes import activated, binary, kept_until_here, matmul, strided, view


def dense_layer(ffn: DenseFFN, normed: Tensor, hidden: int) -> Tensor:
    up = matmul(ffn.width, normed)
    if not ffn.gated:
        return matmul(hidden, activated(up))
    gate = matmul(ffn.width, normed)
    return matmul(hidden, Tensor("glu", gate.shape, [gate, up]))


def expert_layer(
    graph: Graph,
    spec: ModelSpec,
    ffn: MoEFFN,
    normed: Tensor,
    on_device: bool = False,
    router: Tensor | None = None,
) -> Tensor:
    """Routed experts and the shared one; every chosen expert's output is alive at once. CUDA sums
    them in one kernel, for which the outputs stay beside their weighted copies. `router`: logits of
    a router that reads something else; the dense branch is not of this layer then."""
    expand, hidden = graph.expand, spec.hidden
    rows = normed.shape[1]
    late = spec.model_type == "gpt_oss"  # softmax behind the choice of experts
    logits = router if router is not None else matmul(ffn.experts, normed)
    scores = logits if late else Tensor("soft_max", logits.shape, [logits])
    order = Tensor("argsort", scores.shape, [scores])
    chosen = strided(order, (ffn.top_k, rows))
    flat = view(scores, (1, ffn.experts, rows))
    weights = Tensor("get_rows", (1, ffn.top_k, rows), [flat, chosen])
    if late:
        weights = view(weights, (ffn.top_k, rows))
        weights = Tensor("soft_max", weights.shape, [weights])
        weights = view(weights, (1, ffn.top_k, rows))
    else:
        weights = view(weights, (ffn.top_k, rows))
        total = Tensor("sum_rows", (1, rows), [weights])
        total = Tensor("clamp", total.shape, [total])
        weights = Tensor("div", weights.shape, [weights, total])
        weights = view(weights, (1, ffn.top_k, rows))
    expand(weights)
    each = view(normed, (hidden, 1, rows))
    wide = (ffn.width, ffn.top_k, rows)
    up = Tensor("mul_mat_id", wide, [each, chosen])
    gate = Tensor("mul_mat_id", wide, [each, chosen]) if ffn.gated else up
    if late:
        up, gate = Tensor("add_id", wide, [up, chosen]), Tensor("add_id", wide, [gate, chosen])
    act = Tensor("glu", wide, [gate, up]) if ffn.gated else activated(gate)
    down = Tensor("mul_mat_id", (hidden, ffn.top_k, rows), [act, chosen])
    if late:
        down = Tensor("add_id", down.shape, [down, chosen])
    weighted = binary("mul", down, weights)
    expand(weighted)
    parts = [strided(weighted, (hidden, rows)) for _ in range(ffn.top_k)]
    for part in parts:
        expand(part)
    out = parts[0]
    for part in parts[1:]:
        out = binary("add", out, part)
        expand(out)
    if on_device and len(parts) > 1:
        expand(kept_until_here(down, weights))
    if len(parts) == 1:
        out = Tensor("cont", (hidden, rows), [out])
    if ffn.shared_width and router is None:
        shared = DenseFFN(ffn.shared_width, ffn.gated)
        out = binary("add", out, dense_layer(shared, normed, hidden))
    return out
