"""Whether the kvpareto runtime can run a plan for a model and a GPU, and why not.

Its kernels are for Linux on x86-64 and CUDA GPUs that compute in bfloat16, and for models in 16
bits, whose checkpoint is not quantized or AWQ's. Which layers it runs: ModelSpec.runnable.
"""

import os
import sys
from collections.abc import Iterable

from ...hardware.gpus import Hardware
from ...models.spec import (
    Attention,
    CompressedAttention,
    Indexer,
    LatentAttention,
    Layer,
    Mixer,
    ModelSpec,
    RecurrentState,
)
from .checkpoints import reads
from .model_types import why_not

_RUNTIME = "the kvpareto runtime"


def why_planned_only(spec: ModelSpec, hardware: Hardware | None) -> str | None:
    """Why the kvpareto runtime cannot run `spec` on `hardware`; None where it can.

    Without a GPU named, this machine is meant.
    """
    if not spec.runnable:
        return f"{_RUNTIME} has no kernels for {unknown_layers(spec.layers)} ({spec.model_type})"
    if not spec.understood:
        return f"{_RUNTIME} does not know how {spec.model_type} computes"
    refused = why_not(spec.model_type) or why_not(spec.text_type)
    if refused is not None:
        return f"{_RUNTIME} cannot run it: {refused}"
    if spec.quantization is not None and not reads(spec.quantization):
        return f"{_RUNTIME} does not load checkpoints quantized by {spec.quantization.method}"
    if spec.dtype == "float32":
        return f"{_RUNTIME}'s GPU kernels run 16-bit models, not float32"
    if hardware is None or hardware.here:
        machine = os.uname().machine if hasattr(os, "uname") else ""
        if sys.platform != "linux" or machine != "x86_64":
            return f"{_RUNTIME} runs on Linux on x86-64, not on {sys.platform} {machine}".rstrip()
    if hardware is None:
        return None
    if hardware.vendor != "nvidia":
        return f"{_RUNTIME} runs on CUDA GPUs, not on {hardware.name}"
    if not hardware.bf16:
        return f"{_RUNTIME} needs bfloat16, which {hardware.name} does not compute in"
    if hardware.arm:
        return f"{_RUNTIME} runs on Linux on x86-64, and the host of {hardware.name} is ARM"
    return None


def unknown_layers(layers: Iterable[Layer]) -> str:
    """What of layers it cannot run, by name."""
    found = [_why_not(mixer) for layer in layers for mixer in layer.mixers]
    if not any(found):
        found = ["several of these mixers in one layer"]
    return " and ".join(dict.fromkeys(filter(None, found)))


def _why_not(mixer: Mixer) -> str:
    """What a mixer is, where the runtime does not run it in any model; recurrent layers are run by
    the model's type."""
    match mixer:
        case CompressedAttention():
            return "compressed attention"
        case Attention(indexer=Indexer()) | LatentAttention(indexer=Indexer()):
            return "a sparse indexer that chooses tokens"
        case LatentAttention(window=int()):
            return "latent attention in a window"
        case LatentAttention(rope_dim=0):
            return "latent attention without rotary keys"
        case RecurrentState():
            return "recurrent layers"
        case _:
            return ""
