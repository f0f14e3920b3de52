"""Memory that a transformers model would take on a GPU, without one: weights, prefill, decode.

The real model runs on the meta device, fed as `generate` feeds it (a cache that is made
first, chunks of the prompt, last-token logits, then one token at a time).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers.cache_utils import DynamicCache

from tests.support.oracle.cuda_attention import cuda_attention
from tests.support.oracle.tracker import counting


@dataclass(frozen=True)
class Memory:
    """Bytes as torch.cuda.memory_allocated and max_memory_allocated would report them."""

    weights: int
    peak_prefill: int
    resident: int
    peak_decode: int
    where: tuple[str, ...] = ()
    at_peak: list[tuple[str, int]] = field(default_factory=list)


def build(config: Mapping[str, Any], attention: str) -> Any:
    """A causal language model on the meta device in bf16."""
    dropped = ("quantization_config", "auto_map", "torch_dtype", "dtype")
    plain = {k: v for k, v in config.items() if k not in dropped}
    parsed = transformers.AutoConfig.for_model(plain.pop("model_type"), **plain)
    text = parsed.get_text_config()
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            text, dtype=torch.bfloat16, attn_implementation=attention
        )
    return model.eval()


def measure(
    model: Any,
    context: int,
    chunk: int | None,
    *,
    batch: int = 1,
    full_logits: bool = False,
    steps: int = 2,
    explain: bool = False,
) -> Memory:
    """Run `context` tokens in chunks, then `steps` single tokens, and read the counters."""
    with cuda_attention(), counting(explain) as counter:
        for tensor in [*model.parameters(), *model.buffers()]:
            counter.adopt(tensor)
        weights = counter.live
        ids = torch.zeros((batch, context), dtype=torch.long, device="meta")
        cache = DynamicCache(config=model.config)
        counter.reset_peak()
        for start in range(0, context, chunk or context):
            part = ids[:, start : start + (chunk or context)]
            out = model(
                part, past_key_values=cache, use_cache=True, logits_to_keep=0 if full_logits else 1
            )
        del out
        peak_prefill, resident, where = counter.peak, counter.live, counter.where
        at_peak = counter.at_peak
        counter.reset_peak()
        token = torch.zeros((batch, 1), dtype=torch.long, device="meta")
        for _ in range(steps):
            out = model(token, past_key_values=cache, use_cache=True)
        del out
        return Memory(weights, peak_prefill, resident, counter.peak, where, at_peak)
