"""Dense feed-forward blocks: which of the wide tensors are alive together."""

from ..forward_step import Stage
from ..live_tensors import Liveness
from .norms import norm

# Activations written in Python as several operations: copies alive beside input and result.
ACTIVATION_COPIES = {"gelu_new": 2, "gelu_fast": 2, "quick_gelu": 1, "relu2": 1, "xielu": 3.5}


def activated(m: Liveness, activation: str, nbytes: int) -> int:
    """Take act(x) while x is alive."""
    out = m.take(nbytes)
    m.touch(int(ACTIVATION_COPIES.get(activation, 0) * nbytes))
    return out


def gated(m: Liveness, activation: str, width: int, stage: Stage) -> int:
    """down(act(gate(x)) * up(x)), gate and up from matrices of their own (Llama)."""
    wide = stage.bytes(width)
    if stage.fused:
        return _swiglu(m, wide, stage)
    gate = m.take(wide)
    switch = activated(m, activation, wide)
    m.drop(gate)
    up = m.take(wide)
    product = m.take(wide)
    m.drop(switch, up)
    if stage.habits.normed_product:
        normed = norm(m, "rms", stage.rows, width, stage)
        m.drop(product)
        product = normed
    out = m.take(stage.bytes(stage.hidden))
    m.drop(product)
    return out


def gated_fused(m: Liveness, activation: str, width: int, stage: Stage) -> int:
    """The same from one matrix, whose two halves are views (Phi-3, GLM-4)."""
    wide = stage.bytes(width)
    if stage.fused and not stage.habits.plain_gate:
        return _swiglu(m, wide, stage, held=True)
    both = m.take(2 * wide)
    switch = activated(m, activation, wide)
    product = m.take(wide)
    m.drop(switch)
    out = m.take(stage.bytes(stage.hidden))
    m.drop(both, product)
    return out


def _swiglu(m: Liveness, wide: int, stage: Stage, held: bool = False) -> int:
    """One kernel from gate and up to their product (kvpareto); `held`, they keep their names."""
    both = m.take(wide) + m.take(wide)
    product = m.take(wide)
    m.drop(0 if held else both)
    out = m.take(stage.bytes(stage.hidden))
    m.drop(product, both if held else 0)
    return out


def plain(m: Liveness, activation: str, width: int, stage: Stage, release: int = 0) -> int:
    """down(act(up(x))) (GPT-2, Phi-2, Falcon); `release` goes when `up` has been made."""
    wide = stage.bytes(width)
    up = m.take(wide)
    m.drop(release)
    active = activated(m, activation, wide)
    m.drop(up)
    out = m.take(stage.bytes(stage.hidden))
    m.drop(active)
    return out
