"""The engines that a configuration is run on: our runtime, or transformers as `generate` runs it.

transformers is the baseline: the checkpoint's 16 bits, a DynamicCache, one shot or chunks, SDPA or
eager attention, logits of the last token. What it would need further libraries for (QuantizedCache)
is refused.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from ...planner.errors import BadInput, NothingFits
from ...planner.formats.configuration import Configuration
from ...planner.units import format_bytes
from ...planner.workload import Engine, Workload
from ...runtime import Session
from ...runtime.failures import check_finite, is_out_of_memory
from ...runtime.generation.decode import decode
from ...runtime.generation.sampling import GREEDY
from ...runtime.weights.quantize_modules import packed_bytes
from .loaded_model import OpenModel


class Machine(Protocol):
    """A configuration ready to run. Each call may run out of memory: NothingFits says on what,
    torch.OutOfMemoryError does not."""

    session: Session | None
    """The runtime's, where that is what runs."""

    def prefill(self, ids: Tensor, output: int) -> Tensor:
        """Run [B, T] prompt tokens into the emptied cache; the last token's logits [B, V]."""

    def decode(self, logits: Tensor, output: int) -> Iterator[None]:
        """Choose `output` tokens, greedily; one step a token, which is on the host then."""

    def weights(self) -> int:
        """Bytes of the weights as stored: not RoPE's frequencies, nor scratch."""

    def kv(self) -> int:
        """Bytes of the cache's tensors."""

    def why_eager(self) -> str | None:
        """Why passes run without CUDA graphs; None where they are captured."""

    def close(self) -> None:
        """Free the cache and whatever else the machine took."""


def start(
    opened: OpenModel, config: Configuration, workload: Workload, engine: Engine, target: int | None
) -> Machine:
    """A machine for `config`. `target` is the total that dynamic chunks stay within.

    Raises BadInput for what the engine does not run, NothingFits where the cache does not fit.
    """
    if engine is Engine.KVPARETO:
        return _Runtime(opened, config, workload, target)
    return _Transformers(opened, config, engine)


class _Runtime:
    """See Machine."""

    def __init__(
        self, opened: OpenModel, config: Configuration, workload: Workload, target: int | None
    ) -> None:
        from ...runtime.loading import dynamic_chunks

        self.session: Session | None = Session(
            opened.model,
            opened.spec,
            config,
            tokens=workload.tokens,
            batch=workload.batch,
            tokenizer=opened.tokenizer,
            dynamic=dynamic_chunks(opened.spec, config, workload, target, opened.device),
        )

    def prefill(self, ids: Tensor, output: int) -> Tensor:
        return self._open.prefill(ids, output)

    def decode(self, logits: Tensor, output: int) -> Iterator[None]:
        for _ in decode(self._open.forward, logits, output, GREEDY, frozenset()):
            yield

    def weights(self) -> int:
        return packed_bytes(self._open.model)

    def kv(self) -> int:
        return self._open.memory().kv

    def why_eager(self) -> str | None:
        return self._open.why_eager

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None

    @property
    def _open(self) -> Session:
        if self.session is None:
            raise ValueError("the session is closed")
        return self.session


class _Transformers:
    """See Machine. Prefill in chunks of the configuration's size; the cache grows by
    concatenation, so its last step, which `generate` leaves out, is run too: kv() then is of
    context + output tokens."""

    session: Session | None = None

    def __init__(self, opened: OpenModel, config: Configuration, engine: Engine) -> None:
        if config.quantizes_kv or config.weight_bits < 16 or config.dynamic_chunk:
            raise BadInput(
                f"{engine} is run at 16 bits in fixed chunks, not as {config}",
                "--engine kvpareto runs every configuration",
            )
        self._model, self._chunk = opened.model, config.chunk
        self._before = opened.model.config._attn_implementation
        wanted = "eager" if engine is Engine.TRANSFORMERS_EAGER else "sdpa"
        try:
            opened.model.set_attn_implementation(wanted)
        except (ValueError, ImportError) as error:
            raise BadInput(
                f"transformers has no {wanted} attention for {opened.spec.name}",
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
        found = self._model(
            input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        logits: Tensor = found.logits[:, -1]
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
