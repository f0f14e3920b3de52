"""What FlashAttention 3 takes for prompts: scratch and time, as it chooses and as the plugin asks.

    pip install "kvpareto[vllm]"
    python benchmarks/vllm/prompt_splits.py

The library cuts keys into parts where it finds the card not full, and it looks at the longest
prompt alone; each part is a float32 copy of all tokens' results (runtime/vllm_plugin/dense.py). A
line a batch: MiB of scratch and microseconds, left to the library, and cut by all new tokens.
"""

import torch
from vllm.v1.attention.backends import fa_utils

from kvpareto.runtime.vllm_plugin.dense import splits

SHAPES = ((8, 2, 64), (32, 8, 128))  # query heads, heads, channels: the recall model, an 8B model
BATCHES = (  # prompts, their new tokens, and what is cached before each
    (1, 8192, 0), (5, 1600, 0), (6, 1365, 0), (8, 1024, 0), (16, 512, 0), (128, 64, 0),
    (256, 32, 1000), (64, 2, 16_000), (1, 8, 131_000), (1, 100, 131_000), (1, 500, 60_000),
)  # fmt: skip


def main() -> None:
    """A line for each shape and batch."""
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    print(torch.cuda.get_device_name())
    for shape in SHAPES:
        for batch in BATCHES:
            count, new, before = batch
            parts = splits(count * new, shape[0], shape[1], processors)
            said = [f"{mib:.1f} MiB {us:.0f} us" for mib, us in (
                _took(shape, batch, asked) for asked in (0, parts)
            )]  # fmt: skip
            print(f"{shape} {count} x {new} after {before}: the library {said[0]}, "
                  f"{parts} parts {said[1]}", flush=True)  # fmt: skip


def _took(
    shape: tuple[int, int, int], batch: tuple[int, int, int], parts: int
) -> tuple[float, float]:
    """MiB beside the result at most, and microseconds, of one call."""
    query_heads, heads, dim = shape
    count, new, before = batch
    at = torch.arange(count + 1, dtype=torch.int32, device="cuda")
    query = torch.randn(count * new, query_heads, dim, device="cuda", dtype=torch.bfloat16)
    held = torch.randn(count * (new + before), heads, dim, device="cuda", dtype=torch.bfloat16)

    def attend() -> torch.Tensor:
        mixed: torch.Tensor = fa_utils.flash_attn_varlen_func(
            q=query, k=held, v=held, max_seqlen_q=new, cu_seqlens_q=at * new,
            max_seqlen_k=new + before, cu_seqlens_k=at * (new + before),
            softmax_scale=dim**-0.5, causal=True, fa_version=3, num_splits=parts,
        )  # fmt: skip
        return mixed

    attend()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before_bytes = torch.cuda.memory_allocated()
    mixed = attend()
    torch.cuda.synchronize()
    most = torch.cuda.max_memory_allocated() - before_bytes - mixed.nbytes
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(20):
        attend()
    last.record()
    torch.cuda.synchronize()
    return most / 2**20, first.elapsed_time(last) / 20 * 1e3


if __name__ == "__main__":
    main()
