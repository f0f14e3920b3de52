"""Mixers with a state that does not grow, in transformers' own torch code.

A GPU without the optional kernel packages (causal-conv1d, mamba-ssm, flash-linear-attention)
runs these fallbacks, which work in float32 on padded blocks of the sequence and keep most of
what they make alive to the end of the function.
"""

from ....models.spec import RecurrentState
from ..forward_step import ForwardStep
from ..live_tensors import LiveTensors
from .gated_delta import gated_delta
from .mamba2 import mamba2
from .state_space import state_space


def recurrent(live: LiveTensors, mixer: RecurrentState, step: ForwardStep) -> int:
    """Take the mixer's output; the normalised input belongs to the caller."""
    if mixer.kind == "mamba2" and step.recent:
        return mamba2(live, mixer, step)
    if mixer.kind == "gated_delta":
        return gated_delta(live, mixer, step)
    return state_space(live, mixer, step)
