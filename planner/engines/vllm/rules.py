"""Which formats vLLM 0.26.0 runs on which card, as rows: the release refuses the rest at its start.

Read from vllm/v1/attention/backends (caches), vllm/platforms/cuda.py (the order in which they are
tried) and vllm/model_executor/layers/quantization (weights) of that release.
"""

from collections.abc import Iterator
from functools import lru_cache

from ...errors import BadInput
from ...hardware.compute_capability import Capability, compute_capability
from ...hardware.gpus import Hardware
from ...light_dataclass import dataclass
from ...models.spec import Attention, LatentAttention, ModelSpec

OLDEST: Capability = (7, 5)
"""What the release's kernels are built for at least."""
FLASHINFER_HEADS = (64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class CacheRule:
    """A value of --kv-cache-dtype: the least capability, the family of cards where only one has
    it, whether a latent (MLA) can be kept so, and the backends that read it."""

    dtype: str
    least: Capability
    backends: str
    latent: bool = False
    only: int | None = None


@dataclass(frozen=True, slots=True)
class WeightRule:
    """A weight format: the least capability that runs it, and from where on the card multiplies in
    it; below that, Marlin unpacks it to 16 bits on the way."""

    name: str
    least: Capability
    native: Capability | None
    method: str


CACHES = (
    CacheRule("auto", OLDEST, "FlashAttention, FlashInfer or Triton; FlashMLA, Triton", True),
    CacheRule("fp8", (8, 0), "FlashAttention 3 (Hopper), FlashInfer, Triton; FlashMLA", True),
    CacheRule("fp8_per_token_head", (8, 9), "Triton"),
    CacheRule("int8_per_token_head", (8, 0), "Triton"),
    CacheRule("int4_per_token_head", (8, 0), "Triton"),
    CacheRule("nvfp4", (10, 0), "FlashInfer's trtllm-gen", only=10),
)
WEIGHTS = (
    WeightRule("fp8", (7, 5), (8, 9), "fp8"),
    WeightRule("int8", (7, 5), (7, 5), "compressed-tensors"),
    WeightRule("awq", (7, 5), None, "awq"),
    WeightRule("gptq4", (7, 5), None, "gptq"),
    WeightRule("gptq8", (7, 5), None, "gptq"),
    WeightRule("nvfp4", (7, 5), (10, 0), "modelopt_fp4 or compressed-tensors"),
    WeightRule("mxfp4", (8, 0), (10, 0), "mxfp4"),
    WeightRule("nf4", (7, 0), None, "bitsandbytes"),
)
LARGE_BATCHES = 70 * 2**30
"""Bytes of a device from which a server's defaults are 8,192 tokens and 1,024 sequences."""


def capability_of(gpu: Hardware) -> Capability:
    """Raises BadInput for cards that the release has no kernels for, or that are not planned."""
    capability = compute_capability(gpu)
    if capability is None:
        raise BadInput(
            f"vLLM on {gpu.name} is not planned",
            "NVIDIA cards are; --engine llama.cpp plans for others",
        )
    if capability < OLDEST:
        raise BadInput(
            f"vLLM 0.26 has no kernels for {gpu.name} (compute capability "
            f"{capability[0]}.{capability[1]})",
            "it needs 7.5 (Turing) or newer; --engine llama.cpp runs there",
        )
    return capability


def cache_obstacle(spec: ModelSpec, dtype: str, gpu: Hardware) -> str | None:
    """Why this card and release cannot keep the model's cache so; None where they can."""
    capability = capability_of(gpu)
    rule = _caches().get(dtype)
    if rule is None:
        return f"--kv-cache-dtype {dtype} is not planned"
    short = f"compute capability {capability[0]}.{capability[1]}"
    latent = any(isinstance(m, LatentAttention) for m, _ in spec.mixer_counts)
    if latent and not rule.latent:
        return f"a latent (MLA) is not kept as {dtype}: it takes auto and fp8"
    if rule.only is not None and capability[0] != rule.only:
        return f"{dtype} needs {rule.backends} on cards of compute capability {rule.only}.x"
    if capability < rule.least:
        return f"{dtype} needs compute capability {rule.least[0]}.{rule.least[1]}, not {short}"
    if dtype == "fp8" and capability < (8, 9):
        return _early_fp8(spec, short, latent)
    return None


def _early_fp8(spec: ModelSpec, short: str, latent: bool) -> str | None:
    """On Ampere only FlashInfer reads an fp8 cache: not for sinks, latents, or other heads."""
    if latent:
        return f"Triton's latent attention has no fp8 cache at {short}: it needs 8.9"
    for mixer, _ in spec.mixer_counts:
        if isinstance(mixer, Attention):
            if mixer.sinks:
                return f"attention with sinks has no fp8 cache at {short}: it needs 8.9"
            if mixer.head_dim not in FLASHINFER_HEADS:
                return f"heads of {mixer.head_dim} have no fp8 cache at {short}: it needs 8.9"
    return None


def weight_obstacle(name: str, gpu: Hardware) -> str | None:
    """Why this card cannot run weights of that name; None where it can."""
    capability = capability_of(gpu)
    rule = _weights().get(name)
    if rule is None:
        return f"vLLM has no kernels for weights in {name}" if name else None
    if capability >= rule.least:
        return None
    return (
        f"{name} needs compute capability {rule.least[0]}.{rule.least[1]}, "
        f"not {capability[0]}.{capability[1]}"
    )


def own_obstacle(method: str, gpu: Hardware) -> str | None:
    """Why this card cannot run a checkpoint stored by that method; None where it can, or where
    nothing is known of the method."""
    return weight_obstacle(method, gpu) if method in _weights() else None


def unpacked_on_the_way(name: str, gpu: Hardware) -> bool:
    """Whether the card multiplies in 16 bits and unpacks such weights first."""
    rule = _weights().get(name)
    return rule is not None and (rule.native is None or capability_of(gpu) < rule.native)


def cache_dtypes(spec: ModelSpec, gpu: Hardware) -> Iterator[str]:
    """Values of --kv-cache-dtype that the model and the card take."""
    return (r.dtype for r in CACHES if cache_obstacle(spec, r.dtype, gpu) is None)


def batch_defaults(gpu: Hardware) -> tuple[int, int]:
    """(max_num_batched_tokens, max_num_seqs) of a server that is told neither."""
    large = gpu.memory_bytes >= LARGE_BATCHES and "A100" not in gpu.name
    return (8192, 1024) if large else (2048, 256)


@lru_cache(maxsize=1)
def _caches() -> dict[str, CacheRule]:
    return {rule.dtype: rule for rule in CACHES}


@lru_cache(maxsize=1)
def _weights() -> dict[str, WeightRule]:
    return {rule.name: rule for rule in WEIGHTS}
