"""What gpt-oss's MXFP4 experts take beyond their file once vLLM 0.26.0 has loaded them.

Each backend lays codes and scales out in tiles of its own, and a width of 2,880 fills none of them
(model_executor/layers/fused_moe/oracle/mxfp4.py says which card has which, and how it rounds):

    Hopper             Triton's layouts: 2.03 % more, as a run held them
    Blackwell, 10.x    TRT-LLM's: FFN and hidden width to a multiple of 256
    any other card     Marlin's: FFN to 128, hidden width to 256
"""

from ...hardware.compute_capability import Capability
from ...models.spec import ModelSpec, MoEFFN
from .settings import ServeSettings

TRITON = 0.0203
"""Of codes and scales: 431.6 MB a layer of gpt-oss-20b for 423.0 MB in its file."""
BITS = 4 + 8 / 32
"""Of a weight: a code, and a scale of a byte for 32."""


def padding_bytes(here: ModelSpec, settings: ServeSettings, capability: Capability) -> int:
    """Bytes of padding on a rank whose layers `here` has; 0 for other models."""
    if here.model_type != "gpt_oss" or here.quantization is None:
        return 0
    ranks = settings.tensor_parallel * settings.data_parallel if settings.expert_parallel else 1
    return sum(
        int(-(-ffn.experts // ranks) * _padding(ffn.width, here.hidden, capability))
        for layer in here.layers
        if isinstance(ffn := layer.ffn, MoEFFN)
    )


def _padding(width: int, hidden: int, capability: Capability) -> float:
    """Of one expert: three matrices of `width` by `hidden`."""
    matrix = 3 * BITS / 8
    if capability[0] == 9:
        return matrix * width * hidden * TRITON
    tile = 256 if capability[0] == 10 else 128
    return matrix * (_up(width, tile) * _up(hidden, 256) - width * hidden)


def _up(size: int, tile: int) -> int:
    return -(-size // tile) * tile
