"""RoPE whose frequencies depend on length, held still for a whole prompt.

transformers picks the frequencies of `longrope` (Phi-3) and `dynamic` RoPE from the longest
position of each forward pass. Over a cache that is filled in chunks, keys of the first chunks
would be turned by other frequencies than the queries that later meet them, and scores between
them mean nothing. Here they are chosen once, for the prompt and what is to be generated, as one
forward pass over all of it would choose them.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

_FIXED = "fixed"  # a kind that transformers' update leaves alone


class FixedRope:
    """The rotary modules of a model whose frequencies depend on length, if any.

    Frequencies are kept in tensors of its own: captured graphs read them where they are, and what
    transformers does to its buffers between two prompts, in inference mode or by putting others in
    their place, is no concern of theirs.
    """

    def __init__(self, model: nn.Module) -> None:
        self._before: dict[Any, tuple[str, Tensor, float]] = {}
        self._tokens: int | None = None
        modules: Iterator[Any] = model.modules()  # nn.Module's own types know no rope_type
        for module in modules:
            kind = getattr(module, "rope_type", None)
            if isinstance(kind, str) and ("dynamic" in kind or kind == "longrope"):
                self._before[module] = kind, module.inv_freq, module.attention_scaling
                with torch.inference_mode(False):
                    module.inv_freq = module.inv_freq.clone()
                module.rope_type = _FIXED

    @torch.no_grad()
    def fix(self, tokens: int) -> None:
        """Choose the frequencies for sequences of up to `tokens` tokens, where others are set."""
        if tokens == self._tokens:
            return
        self._tokens = tokens
        for module, (kind, _, _) in self._before.items():
            frequencies, module.attention_scaling = ROPE_INIT_FUNCTIONS[kind](
                module.config, module.inv_freq.device, seq_len=tokens
            )
            module.inv_freq.copy_(frequencies)

    def restore(self) -> None:
        """Let the modules follow the length of each pass again, from where they were."""
        for module, (kind, frequencies, scaling) in self._before.items():
            module.rope_type, module.inv_freq = kind, frequencies
            module.attention_scaling = scaling
        self._before.clear()
