"""Whether a prompt's pass runs a model's last layer for the one row that is read.

Of a prompt's pass the output head reads the last row. Where the last layer keeps keys and values
and nothing else, the kvpareto runtime computes these for all rows, and the rest of the layer for
that one (runtime/generation/last_layer.py, which asks the loaded model itself).
"""

from ...models.spec import Attention, LatentAttention, ModelSpec

WHOLE_TO = 64
"""Rows of a pass up to which the whole layer takes no longer than one row of it: both wait for its
weights."""
OTHERWISE = frozenset({"beam", "ctrl"})
"""Types whose layers are given more by token, or call their input by another name."""


def reads_one_row(spec: ModelSpec) -> bool:
    """Whether passes of more than WHOLE_TO rows run the last layer so."""
    if len(spec.layers) < 2 or spec.decoder_type in OTHERWISE:
        return False
    mixers = spec.layers[-1].mixers
    if len(mixers) != 1:
        return False
    mixer = mixers[0]
    if isinstance(mixer, LatentAttention):
        return mixer.packed
    return isinstance(mixer, Attention) and mixer.shares_kv_with is None
