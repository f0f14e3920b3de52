"""Dense feed-forward blocks: which of the wide tensors are alive together."""

from ..forward_step import ForwardStep
from ..live_tensors import LiveTensors
from .norms import norm

# Activations written in Python as several operations: copies alive beside input and result.
ACTIVATION_COPIES = {"gelu_new": 2, "gelu_fast": 2, "quick_gelu": 1, "relu2": 1, "xielu": 3.5}


def activated(live: LiveTensors, activation: str, nbytes: int) -> int:
    """Take act(x) while x is alive."""
    out = live.take(nbytes)
    live.touch(int(ACTIVATION_COPIES.get(activation, 0) * nbytes))
    return out


def gated(live: LiveTensors, activation: str, width: int, step: ForwardStep) -> int:
    """down(act(gate(x)) * up(x)), gate and up from matrices of their own (Llama)."""
    wide = step.bytes(width)
    if step.fused:
        return _swiglu(live, wide, step)
    gate = live.take(wide)
    switch = activated(live, activation, wide)
    live.drop(gate)
    up = live.take(wide)
    product = live.take(wide)
    live.drop(switch, up)
    if step.traits.normed_product:
        normed = norm(live, "rms", step.rows, width, step)
        live.drop(product)
        product = normed
    out = live.take(step.bytes(step.hidden))
    live.drop(product)
    return out


def gated_fused(live: LiveTensors, activation: str, width: int, step: ForwardStep) -> int:
    """The same from one matrix, whose two halves are views (Phi-3, GLM-4)."""
    wide = step.bytes(width)
    if step.fused and not step.traits.plain_gate:
        return _swiglu(live, wide, step, held=True)
    both = live.take(2 * wide)
    switch = activated(live, activation, wide)
    product = live.take(wide)
    live.drop(switch)
    out = live.take(step.bytes(step.hidden))
    live.drop(both, product)
    return out


def _swiglu(live: LiveTensors, wide: int, step: ForwardStep, held: bool = False) -> int:
    """One kernel from gate and up to their product (kvpareto); `held`, they keep their names."""
    rows = live.take_all(step.rounded(step.hidden))
    both = live.take(wide) + live.take(wide)
    live.drop(rows)
    product = live.take(wide)
    live.drop(0 if held else both)
    rows = live.take_all(step.rounded(wide // max(1, step.bytes(1))))
    out = live.take(step.bytes(step.hidden))
    live.drop(product, both if held else 0, rows)
    return out


def plain(
    live: LiveTensors, activation: str, width: int, step: ForwardStep, release: int = 0
) -> int:
    """down(act(up(x))) (GPT-2, Phi-2, Falcon); `release` goes when `up` has been made."""
    wide = step.bytes(width)
    rows = live.take_all(step.rounded(step.hidden))
    up = live.take(wide)
    live.drop(release, rows)
    active = activated(live, activation, wide)
    live.drop(up)
    rows = live.take_all(step.rounded(width))
    out = live.take(step.bytes(step.hidden))
    live.drop(active, rows)
    return out
