"""What a step's batch is to the backend: rows that decode, then parts of prompts.

vLLM puts requests of one new token first. They go through one kernel whose launch does not depend
on lengths, so that pure decode steps are captured as graphs; the rest is staged (batch.py).
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.v1.attention.backend import AttentionCGSupport, CommonAttentionMetadata
from vllm.v1.attention.backends.triton_attn import (
    TritonAttentionMetadata,
    TritonAttentionMetadataBuilder,
)
from vllm.v1.attention.backends.utils import split_decodes_and_prefills

from .batch import PromptPart, cut_prompts


@dataclass
class StagedPrompts:
    """A part of the prompts with what its launches read, on the device."""

    part: PromptPart
    query_starts: Tensor  # int32 [requests + 1], from 0
    starts: Tensor  # int32 [requests + 1]: where each request's keys begin in the workspace


@dataclass
class PackedMetadata(TritonAttentionMetadata):
    """vLLM's metadata, and how the batch is cut."""

    decodes: int = 0  # requests of one new token, the first of the batch
    prompts: list[StagedPrompts] = field(default_factory=list)


def staging_room(vllm_config: Any) -> int:
    """Tokens the workspace holds: the longest sequence, or a step's new tokens if more."""
    longest = vllm_config.model_config.max_model_len
    return max(longest, vllm_config.scheduler_config.max_num_batched_tokens)


class PackedMetadataBuilder(TritonAttentionMetadataBuilder):
    """The parent's metadata of each step, with the cut."""

    _cudagraph_support: ClassVar[AttentionCGSupport] = (
        AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE
    )

    def __init__(
        self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._init_reorder_batch_threshold(1, supports_spec_as_decode=False)
        self._room = staging_room(vllm_config)

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> PackedMetadata:
        common = common_attn_metadata
        base = super().build(common_prefix_len, common, fast_build)
        decodes = split_decodes_and_prefills(common, decode_threshold=1)[0]
        metadata = PackedMetadata(**vars(base), decodes=decodes)
        if decodes == common.num_reqs:
            return metadata
        lengths = common.seq_lens_cpu_upper_bound
        if lengths is None:
            lengths = common.seq_lens.cpu()
        query_starts = common.query_start_loc_cpu.tolist()
        held = lengths[: common.num_reqs].tolist()
        for part in cut_prompts(query_starts, held, decodes, self._room):
            starts = torch.zeros(part.last - part.first + 1, dtype=torch.int32, device=self.device)
            torch.cumsum(common.seq_lens[part.first : part.last], 0, out=starts[1:])
            shifted = common.query_start_loc[part.first : part.last + 1] - part.first_token
            metadata.prompts.append(StagedPrompts(part, shifted, starts))
        return metadata
