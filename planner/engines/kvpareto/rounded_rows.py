"""Activations of prompts in 8 bits (`w4a8`): which models they are for, and what is said of them.

Products of many rows are counted, and held to the reference, in dense models with plain attention
alone: routed experts and latents multiply by kernels of their own, in 16 bits.
"""

from ...errors import BadInput
from ...formats.configuration import Configuration
from ...models.spec import Attention, DenseFFN, ModelSpec


def check_rows(spec: ModelSpec, config: Configuration) -> None:
    """Raise BadInput where a model is none of those whose rows are rounded."""
    if config.activation_bits == 16:
        return
    plain = all(
        isinstance(layer.ffn, DenseFFN) and all(isinstance(x, Attention) for x in layer.mixers)
        for layer in spec.layers
    )
    if not plain:
        raise BadInput(
            f"8-bit activations are for dense models with plain attention, not {spec.model_type}",
            f"write w{config.weight_bits}a16",
        )


def rows_note(config: Configuration) -> tuple[str, ...]:
    if config.activation_bits == 16:
        return ()
    return (
        "a8: prompts' products of more than 64 rows run in e4m3 on Hopper (H100, H200, GH200); "
        "elsewhere rows are rounded the same and multiplied in 16 bits, which gains no time",
    )
