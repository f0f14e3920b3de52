"""Whether the kvpareto runtime can run a plan for a model and a GPU, and why not.

Its kernels are for Linux on x86-64 and CUDA GPUs that compute in bfloat16, and for models in 16
bits with plain or sliding attention, whose checkpoint is not quantized or AWQ's.
"""

import os
import sys

from ...hardware.gpus import Hardware
from ...models.spec import (
    Attention,
    CompressedAttention,
    LatentAttention,
    ModelSpec,
    RecurrentState,
)
from .model_types import why_not

_READ = ("awq",)  # quantized checkpoints that the runtime loads: runtime/loading.py
_RUNTIME = "the kvpareto runtime"


def why_planned_only(spec: ModelSpec, hardware: Hardware | None) -> str | None:
    """Why the kvpareto runtime cannot run `spec` on `hardware`; None where it can.

    Without a GPU named, this machine is meant.
    """
    if not spec.runnable:
        return f"{_RUNTIME} has no kernels for {_unknown_layers(spec)} ({spec.model_type})"
    if not spec.understood:
        return f"{_RUNTIME} does not know how {spec.model_type} computes"
    refused = why_not(spec.model_type) or why_not(spec.text_type)
    if refused is not None:
        return f"{_RUNTIME} cannot run it: {refused}"
    if spec.quantization is not None and spec.quantization.method not in _READ:
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


def _unknown_layers(spec: ModelSpec) -> str:
    names = {
        LatentAttention: "latent attention",
        CompressedAttention: "compressed attention",
        RecurrentState: "recurrent layers",
    }
    kinds = [names.get(type(m), "attention in aligned chunks") for m, _ in spec.mixer_counts]
    local = [isinstance(m, Attention) and m.local_chunk is None for m, _ in spec.mixer_counts]
    missing = dict.fromkeys(kind for kind, plain in zip(kinds, local, strict=True) if not plain)
    return " and ".join(missing)
