"""Bytes of a model's weights in whatever format a configuration asks for, named ones too.

Bits are weights.py's. A named format (formats/named.py) has a rule of its own, by the kind of
file that it is stored in.
"""

from ..errors import BadInput
from ..models.spec import ModelSpec
from .weights import WeightBytes, weight_bytes


def weights_of(spec: ModelSpec, weight_bits: int, name: str = "") -> WeightBytes:
    """Bytes of `spec`'s weights at `weight_bits`, or in the format called `name`.

    Raises BadInput where the model cannot have them.
    """
    if not name:
        return weight_bytes(spec, weight_bits)
    raise BadInput(f"the size of {spec.name} in {name} is not known", "give weights as bits: w4a16")
