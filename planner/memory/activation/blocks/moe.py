"""Mixtures of experts as transformers runs them on a GPU: one grouped product over sorted rows.

Every token is copied once for each expert it goes to, and stays so until the end
(transformers.integrations.moe.grouped_mm_experts_forward).
"""

from ....models.spec import MoEFFN
from ..forward_step import ForwardStep
from ..live_tensors import LiveTensors
from ..workspace import tokens_at_once
from .ffn import activated, gated, plain


def moe(live: LiveTensors, ffn: MoEFFN, step: ForwardStep) -> int:
    """Take the block's output; its normalised input belongs to the caller."""
    if step.traits.every_expert:
        return _every_expert(live, ffn, step)
    first = step.traits.shared_first
    shared = _shared(live, ffn, step) if first else 0
    routing = _route(live, ffn, step)
    out = _experts(live, ffn, step)
    if not first:
        shared = _shared(live, ffn, step)
    live.drop(routing)
    if shared:
        total = live.take(step.bytes(step.hidden))
        live.drop(shared, out)
        out = total
    return out


def _every_expert(live: LiveTensors, ffn: MoEFFN, step: ForwardStep) -> int:
    """Llama 4: all tokens repeated for all experts, in batched products."""
    pairs = step.rows * ffn.experts
    repeated = live.take(pairs * step.hidden * step.element)
    rows = live.take(pairs * step.hidden * step.element)  # times the routing weights
    live.drop(repeated)
    if step.packed_weights:
        out = _routed_by_input(live, ffn, step)
        shared = _shared(live, ffn, step)
        live.drop(rows, out)
        return shared
    both = live.take(2 * pairs * ffn.width * step.element)
    switch = activated(live, ffn.activation, pairs * ffn.width * step.element)
    product = live.take(pairs * ffn.width * step.element)
    live.drop(switch)
    out = live.take(pairs * step.hidden * step.element)
    live.drop(both, product)
    shared = _shared(live, ffn, step)
    live.drop(rows, out)
    return shared


def _routed_by_input(live: LiveTensors, ffn: MoEFFN, step: ForwardStep) -> int:
    """kvpareto's packed experts of such a layer: rows that are none are picked, and their results
    put among zeros."""
    strength = live.take(step.rows * ffn.experts * step.element)
    picked = live.take(step.rows * ffn.top_k * step.hidden * step.element)
    result = live.take(step.rows * ffn.experts * step.hidden * step.element)
    out = _packed_experts(live, ffn, step)
    live.drop(strength, picked, out)
    return result


def _shared(live: LiveTensors, ffn: MoEFFN, step: ForwardStep) -> int:
    if not ffn.shared_width or step.traits.dense_beside:
        return 0
    run = gated if ffn.gated else plain
    return run(live, ffn.activation, ffn.shared_width, step)


def _route(live: LiveTensors, ffn: MoEFFN, step: ForwardStep) -> int:
    """Router: logits, their float32 softmax, weights and indices of the chosen experts."""
    logits = live.take(step.rows * ffn.experts * step.element)
    scores = live.take(step.rows * ffn.experts * 4)
    chosen = live.take(step.rows * ffn.top_k * (8 + 4))
    live.drop(scores)
    return logits + chosen


def _packed_experts(live: LiveTensors, ffn: MoEFFN, step: ForwardStep) -> int:
    """kvpareto's packed experts (runtime/weights/experts.py): the pairs of `tokens_at_once` tokens
    together, whose rows are first put into the order of the packed words."""
    out = live.take(step.bytes(step.hidden))
    tokens = tokens_at_once(step.rows, ffn.top_k, ffn.experts)
    pairs = tokens * ffn.top_k
    order = live.take(pairs * 8)
    ordered = live.take(tokens * step.hidden * step.element)
    wide = ffn.width * (2 if ffn.gated else 1)
    projected = live.take(pairs * wide * step.element)
    live.drop(ordered)
    active = _activated(live, ffn, pairs * ffn.width * step.element, step)
    live.drop(projected)
    ordered = live.take(pairs * ffn.width * step.element)
    down = live.take(pairs * step.hidden * step.element)
    live.drop(active, ordered, down, order)
    return out


def _experts(live: LiveTensors, ffn: MoEFFN, step: ForwardStep) -> int:
    if step.packed_weights:
        return _packed_experts(live, ffn, step)
    pairs = step.rows * ffn.top_k
    element, hidden = step.element, step.hidden
    weighing = 4 if step.traits.float_routing else element
    # sorted expert numbers, their permutation, the counts' input, the chosen weights
    sorting = live.take(pairs * (8 + 8)) + live.take(pairs * (4 + element))
    rows = live.take(pairs * hidden * element)
    wide = ffn.width * (2 if ffn.gated else 1)
    biased = step.traits.expert_biases
    biases = live.take(pairs * wide * element) if biased else 0
    projected = live.take(pairs * wide * element)
    masked = live.take(pairs * wide * element)
    live.drop(projected)
    active = _activated(live, ffn, pairs * ffn.width * element, step)
    live.drop(masked)
    if biased:
        gathered = live.take(pairs * hidden * element)
        live.drop(biases)
        biases = gathered
    down = live.take(pairs * hidden * element)
    live.drop(active)
    masked = live.take(pairs * hidden * element)
    live.drop(down)
    weighted = live.take(pairs * hidden * weighing)
    inverse = live.take(pairs * 8)
    ordered = live.take(pairs * hidden * weighing)
    live.drop(weighted)
    out = live.take(step.rows * hidden * weighing)
    if weighing != element:
        cast = live.take(step.rows * hidden * element)
        live.drop(out)
        out = cast
    live.drop(ordered, masked, rows, inverse, sorting, biases)
    return out


def _activated(live: LiveTensors, ffn: MoEFFN, nbytes: int, step: ForwardStep) -> int:
    """What goes into the last product, from gate and up that are views of one tensor."""
    if step.traits.clamped_gate:
        gate, up = live.take(nbytes), live.take(nbytes)
        scaled = live.take(nbytes)
        sigmoid = live.take(nbytes)
        live.drop(scaled)
        glu = live.take(nbytes)
        live.drop(sigmoid)
        raised = live.take(nbytes)
        product = live.take(nbytes)
        live.drop(gate, up, glu, raised)
        return product
    active = activated(live, ffn.activation, nbytes)
    if not ffn.gated:
        return active
    product = live.take(nbytes)
    live.drop(active)
    return product
