"""A configuration run by transformers as `generate` runs it: the baseline.

The checkpoint's 16 bits, a DynamicCache, one shot or chunks, logits of the last token. What it
would need further libraries for (QuantizedCache) is refused.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ....planner.errors import BadInput, NothingFits
from ....planner.formats.configuration import Configuration
from ....planner.models.spec import ModelSpec
from ....planner.units import format_bytes
from ....planner.workload import Workload
from ....runtime import Session
from ....runtime.cache.cache_name import cache_name
from ....runtime.failures import check_finite, is_out_of_memory
from ....runtime.weights.quantize_modules import packed_bytes
from ..loaded_model import OpenModel


def start(
    opened: OpenModel, config: Configuration, workload: Workload, target: int | None
) -> "TransformersMachine":
    """See engines.start; with SDPA."""
    check(opened.spec, config, workload, target, opened.device.type)
    return TransformersMachine(opened, config, "sdpa")


def check(
    spec: ModelSpec, config: Configuration, workload: Workload, target: int | None, device: str
) -> None:
    """See engines.check."""
    if config.quantizes_kv or config.weight_bits < 16 or config.dynamic_chunk:
        raise BadInput(
            f"transformers is run at 16 bits in fixed chunks, not as {config}",
            "--engine kvpareto runs every configuration",
        )


class TransformersMachine:
    """See Machine. Prefill in chunks of the configuration's size; the cache grows by
    concatenation, so its last step, which `generate` leaves out, is run too: kv() then is of
    context + output tokens."""

    session: Session | None = None

    def __init__(self, opened: OpenModel, config: Configuration, attention: str) -> None:
        self._model, self._chunk = opened.model, config.chunk
        self._before = opened.model.config._attn_implementation
        try:
            opened.model.set_attn_implementation(attention)
        except (ValueError, ImportError) as error:
            raise BadInput(
                f"transformers has no {attention} attention for {opened.spec.name}",
                "take the other of transformers and transformers-eager",
            ) from error
        self._cache: Any = None

    @torch.inference_mode()
    def prefill(self, ids: Tensor, output: int) -> Tensor:
        from transformers import DynamicCache

        self._cache = None
        self._cache = DynamicCache(config=self._model.config)
        ids = ids.to(self._model.device)
        tokens = ids.shape[1]
        size = self._chunk or tokens
        for begin in range(0, tokens, size):
            part = ids[:, begin : begin + size]
            try:
                logits = self._pass(part)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                held = format_bytes(self.kv())
                raise NothingFits(
                    f"the activations of a prefill chunk of {part.shape[1]} tokens do not fit, at "
                    f"{begin} of {tokens} tokens, beside a cache of {held}",
                    "a smaller prefill chunk (+pc1024)",
                ) from error
        return logits

    @torch.inference_mode()
    def decode(self, logits: Tensor, output: int) -> Iterator[None]:
        chosen = logits.argmax(-1, keepdim=True)
        for step in range(output):
            logits = self._pass(chosen)
            check_finite(logits, f"after {step + 1} generated tokens")
            chosen = logits.argmax(-1, keepdim=True)
            chosen.tolist()
            yield

    def _pass(self, ids: Tensor) -> Tensor:
        output = self._model(
            input_ids=ids,
            use_cache=True,
            logits_to_keep=1,
            **{cache_name(self._model): self._cache},
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def weights(self) -> int:
        return packed_bytes(self._model)

    def kv(self) -> int:
        layers = self._cache.layers if self._cache is not None else []
        held = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
        return sum(tensor.nbytes for tensor in held if isinstance(tensor, Tensor))

    def why_eager(self) -> str | None:
        return "transformers runs pass by pass"

    def close(self) -> None:
        self._cache = None
        self._model.set_attn_implementation(self._before)
