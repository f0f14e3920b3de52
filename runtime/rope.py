"""RoPE's angles: frequencies that depend on length, held still; those of a step in one launch.

transformers picks the frequencies of `longrope` (Phi-3) and `dynamic` RoPE from the longest
position of each forward pass. Over a cache that is filled in chunks, keys of the first chunks
would be turned by other frequencies than the queries that later meet them, and scores between
them mean nothing. Here they are chosen once, for the prompt and what is to be generated, as one
forward pass over all of it would choose them.

A decode step's cos and sin are nine small kernels in transformers' modules; `rotary` makes them in
one launch where `is_plain` has found them the same.
"""

from collections.abc import Callable, Iterator
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


def is_plain(module: Any) -> bool:
    """Whether the kernel's cos and sin are the module's own, at near and far positions."""
    from .fused_kernels import angles

    frequencies, scaling = module.inv_freq, module.attention_scaling
    follows = str(module.rope_type)  # frequencies that each pass chooses anew
    if "dynamic" in follows or follows == "longrope" or not isinstance(scaling, float | int):
        return False
    positions = torch.tensor([[0, 1, 77, 4095, 131_071, 1_000_003]], device=frequencies.device)
    like = torch.empty(0, dtype=torch.bfloat16, device=frequencies.device)
    ours = angles(positions, frequencies, scaling, like.dtype)
    most = 2**-7 * max(1.0, abs(scaling))  # a bfloat16 unit in the last place
    return all(
        bool(((one.float() - other.float()).abs() <= most).all())
        for one, other in zip(module(like, positions), ours, strict=True)
    )


def rotary(
    module: Any, x: Tensor, position_ids: Tensor, *, original: Callable[..., Any], most: int
) -> tuple[Tensor, Tensor]:
    """cos and sin of `most` tokens or fewer in one launch; of more, as the module has them."""
    if position_ids.numel() > most or x.device != module.inv_freq.device:
        made: tuple[Tensor, Tensor] = original(x, position_ids)
        return made
    from .fused_kernels import angles  # Triton, which only GPU machines need

    return angles(position_ids, module.inv_freq, module.attention_scaling, x.dtype)
