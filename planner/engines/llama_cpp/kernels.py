"""Pairs of cache types that a GPU's build of llama.cpp has attention for.

Without a kernel the scheduler moves attention, and the cache with it, to the processor: on an H200
a token of Qwen2.5-0.5B took 8.2 ms with an iq4_nl cache and 2.1 with f16
(profiles/llama_cpp/memory_cuda.jsonl). Sources: ggml/src/ggml-cuda/fattn.cu, HIP builds it too, and
ggml-metal-device.m of build 11434.
"""

from ...placement import Machine

GPU_TYPES = frozenset({"f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"})


def without_kernel(keys: str, values: str, machine: Machine) -> str | None:
    """Why attention of this cache would leave the GPU; None where it does not, or there is none."""
    if not machine.budgets and not machine.gpus:
        return None
    for name in (keys, values):
        if name not in GPU_TYPES:
            return f"llama.cpp's GPU builds have no attention for {name} caches"
    if machine.gpu is not None and machine.gpu.unified and keys != values:
        return f"llama.cpp on {machine.gpu.name} has no attention for K {keys} and V {values}"
    return None
