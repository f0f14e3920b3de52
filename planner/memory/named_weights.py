"""Bytes of a model's weights in whatever format a configuration asks for, named ones too.

Bits are weights.py's. A named format (formats/named.py) has a rule of its own, by the kind of
file that it is stored in.
"""

from ..errors import BadInput
from ..formats import named
from ..models.spec import ModelSpec, Part
from .weights import WeightBytes, weight_bytes


def weights_of(spec: ModelSpec, weight_bits: int, name: str = "") -> WeightBytes:
    """Bytes of `spec`'s weights at `weight_bits`, or in the format called `name`.

    Raises BadInput where the model cannot have them.
    """
    if not name:
        return weight_bytes(spec, weight_bits)
    row = named.weight_format(name)
    if row is not None and named.LLAMA_CPP in row.engines:
        return _of_gguf(spec, row.name)
    raise BadInput(f"the size of {spec.name} in {name} is not known", "give weights as bits: w4a16")


def _of_gguf(spec: ModelSpec, mix: str) -> WeightBytes:
    from ..formats.gguf_types import GGUF_TYPES  # a plan of other engines starts without them
    from .gguf_weights import gguf_weight_bytes

    stored = gguf_weight_bytes(spec, mix)
    quantized = sum(size for name, size in stored.by_type.items() if GGUF_TYPES[name].quantized)
    return WeightBytes(
        total=stored.total,
        parts={Part.TEXT: stored.total},
        workspace=0,  # llama.cpp's kernels multiply by the blocks themselves
        quantized=quantized,
        kept=stored.total - quantized,
        formats=stored.by_type,
    )
