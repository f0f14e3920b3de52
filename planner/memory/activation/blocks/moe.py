"""Mixtures of experts as transformers runs them on a GPU: one grouped product over sorted rows.

Every token is copied once for each expert it goes to, and stays so until the end
(transformers.integrations.moe.grouped_mm_experts_forward).
"""

from ....models.spec import MoEFFN
from ..forward_step import Stage
from ..live_tensors import Liveness
from .ffn import activated, gated, plain


def moe(m: Liveness, ffn: MoEFFN, stage: Stage) -> int:
    """Take the block's output; its normalised input belongs to the caller."""
    if stage.habits.every_expert:
        return _every_expert(m, ffn, stage)
    first = stage.habits.shared_first
    shared = _shared(m, ffn, stage) if first else 0
    routing = _route(m, ffn, stage)
    out = _experts(m, ffn, stage)
    if not first:
        shared = _shared(m, ffn, stage)
    m.drop(routing)
    if shared:
        total = m.take(stage.bytes(stage.hidden))
        m.drop(shared, out)
        out = total
    return out


def _every_expert(m: Liveness, ffn: MoEFFN, stage: Stage) -> int:
    """Llama 4: all tokens repeated for all experts, in batched products."""
    pairs = stage.rows * ffn.experts
    repeated = m.take(pairs * stage.hidden * stage.element)
    rows = m.take(pairs * stage.hidden * stage.element)  # times the routing weights
    m.drop(repeated)
    both = m.take(2 * pairs * ffn.width * stage.element)
    switch = activated(m, ffn.activation, pairs * ffn.width * stage.element)
    product = m.take(pairs * ffn.width * stage.element)
    m.drop(switch)
    out = m.take(pairs * stage.hidden * stage.element)
    m.drop(both, product)
    shared = _shared(m, ffn, stage)
    m.drop(rows, out)
    return shared


def _shared(m: Liveness, ffn: MoEFFN, stage: Stage) -> int:
    if not ffn.shared_width or stage.habits.dense_beside:
        return 0
    run = gated if ffn.gated else plain
    return run(m, ffn.activation, ffn.shared_width, stage)


def _route(m: Liveness, ffn: MoEFFN, stage: Stage) -> int:
    """Router: logits, their float32 softmax, weights and indices of the chosen experts."""
    logits = m.take(stage.rows * ffn.experts * stage.element)
    scores = m.take(stage.rows * ffn.experts * 4)
    chosen = m.take(stage.rows * ffn.top_k * (8 + 4))
    m.drop(scores)
    return logits + chosen


def _packed_experts(m: Liveness, ffn: MoEFFN, stage: Stage) -> int:
    """kvpareto's packed experts, one after another, each with at most twice an even share of the
    tokens at a time (runtime/weights/experts.py, rows_at_once)."""
    out = m.take(stage.bytes(stage.hidden))
    share = min(stage.rows, -(-2 * stage.rows * ffn.top_k // ffn.experts))
    wide = ffn.width * (2 if ffn.gated else 1)
    rows = m.take(share * stage.hidden * stage.element)
    projected = m.take(share * wide * stage.element)
    m.drop(rows)
    active = _activated(m, ffn, share * ffn.width * stage.element, stage)
    m.drop(projected)
    down = m.take(share * stage.hidden * stage.element)
    m.touch(2 * down)  # weighted, and cast back
    m.drop(active, down)
    return out


def _experts(m: Liveness, ffn: MoEFFN, stage: Stage) -> int:
    if stage.packed_weights:
        return _packed_experts(m, ffn, stage)
    pairs = stage.rows * ffn.top_k
    element, hidden = stage.element, stage.hidden
    weighing = 4 if stage.habits.float_routing else element
    # sorted expert numbers, their permutation, the counts' input, the chosen weights
    sorting = m.take(pairs * (8 + 8)) + m.take(pairs * (4 + element))
    rows = m.take(pairs * hidden * element)
    wide = ffn.width * (2 if ffn.gated else 1)
    biased = stage.habits.expert_biases
    biases = m.take(pairs * wide * element) if biased else 0
    projected = m.take(pairs * wide * element)
    masked = m.take(pairs * wide * element)
    m.drop(projected)
    active = _activated(m, ffn, pairs * ffn.width * element, stage)
    m.drop(masked)
    if biased:
        gathered = m.take(pairs * hidden * element)
        m.drop(biases)
        biases = gathered
    down = m.take(pairs * hidden * element)
    m.drop(active)
    masked = m.take(pairs * hidden * element)
    m.drop(down)
    weighted = m.take(pairs * hidden * weighing)
    inverse = m.take(pairs * 8)
    ordered = m.take(pairs * hidden * weighing)
    m.drop(weighted)
    out = m.take(stage.rows * hidden * weighing)
    if weighing != element:
        cast = m.take(stage.rows * hidden * element)
        m.drop(out)
        out = cast
    m.drop(ordered, masked, rows, inverse, sorting, biases)
    return out


def _activated(m: Liveness, ffn: MoEFFN, nbytes: int, stage: Stage) -> int:
    """What goes into the last product, from gate and up that are views of one tensor."""
    if stage.habits.clamped_gate:
        gate, up = m.take(nbytes), m.take(nbytes)
        scaled = m.take(nbytes)
        sigmoid = m.take(nbytes)
        m.drop(scaled)
        glu = m.take(nbytes)
        m.drop(sigmoid)
        raised = m.take(nbytes)
        product = m.take(nbytes)
        m.drop(gate, up, glu, raised)
        return product
    active = activated(m, ffn.activation, nbytes)
    if not ffn.gated:
        return active
    product = m.take(nbytes)
    m.drop(active)
    return product
