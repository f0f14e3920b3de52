"""Activations of prompts in 8 bits (`w4a8`): which models and cards they are for.

Products of many rows are counted, and held to the reference, in dense models with plain attention
alone: routed experts and latents multiply by kernels of their own, in 16 bits. cuBLAS has products
of e4m3 under scales by row and output on Hopper; a CPU computes what these do.
"""

from ...errors import BadInput
from ...formats.configuration import Configuration
from ...hardware.gpus import Hardware
from ...memory.activation.kvpareto_engine import multiplies_in_8_bits
from ...models.spec import Attention, DenseFFN, ModelSpec


def check_rows(spec: ModelSpec, config: Configuration, hardware: Hardware | None = None) -> None:
    """Raise BadInput where a model, or a card that is known, has no such products."""
    if config.activation_bits == 16:
        return
    plain = all(
        isinstance(layer.ffn, DenseFFN) and all(isinstance(x, Attention) for x in layer.mixers)
        for layer in spec.layers
    )
    instead = f"write w{config.weight_bits}a16"
    if not plain or spec.dtype != "bfloat16":
        raise BadInput(
            "8-bit activations are for dense models in bfloat16 with plain attention, not this "
            f"{spec.model_type}",
            instead,
        )
    if hardware is not None and not multiplies_in_8_bits(hardware):
        raise BadInput(
            f"8-bit activations run on Hopper (H100, H200, GH200), not on {hardware.name}", instead
        )
