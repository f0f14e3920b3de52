"""vLLM's attention backend over its own pages of 4- and 8-bit keys and values, with our kernels.

A subclass of vLLM's Triton backend: page layout, planning and everything that is not taken here
(other cache types, biases of position, encoders, fused output formats) is the parent's.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from vllm.config import get_current_vllm_config
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend, TritonAttentionImpl

from ..kernels.paged.decode_pages import PageDecoder, fits, supports
from ..kernels.paged.page_format import PageFormat
from ..kernels.paged.stage_pages import PADDING, rotate_rows, stage_pages
from ..kernels.paged.write_pages import write_pages
from .dense import dense_attention, dense_version
from .metadata import PackedMetadata, PackedMetadataBuilder, StagedPrompts, staging_room
from .workspace import staging_buffers


class PackedAttentionBackend(TritonAttentionBackend):
    """vLLM's CUSTOM backend: `--attention-backend CUSTOM`."""

    forward_includes_kv_cache_update = True  # a decode step's one launch writes its tokens too

    @staticmethod
    def get_name() -> str:
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> type["PackedAttentionImpl"]:
        return PackedAttentionImpl

    @staticmethod
    def get_builder_cls() -> type[PackedMetadataBuilder]:
        return PackedMetadataBuilder

    @classmethod
    def get_required_kv_cache_layout(cls) -> str:
        return "HND"  # a head's tokens lie together within a page


class PackedAttentionImpl(TritonAttentionImpl):
    """Attention of one layer: decode rows over pages, prompts over staged keys and values."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = get_current_vllm_config()
        form = PageFormat.of(self.kv_cache_dtype, self.head_size)
        plain = self.alibi_slopes is None and self.chunk_lookback == -1
        overlapped = config.parallel_config.use_ubatching  # two batches would share one workspace
        if not plain or overlapped or self.attn_type != AttentionType.DECODER:
            form = None
        self._form: PageFormat | None = form
        self._room = staging_room(config)
        self._page_tokens: int = config.cache_config.block_size or 16
        self._window = self.sliding_window[0] + 1  # 0: all
        self._dense = dense_version(self.head_size, self.sinks is not None)
        self._fitting: tuple[int, bool] = (0, False)

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: Any,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """query, output [>= tokens, heads, D]; see the parent."""
        if attn_metadata is None:  # the run in which vLLM measures memory
            self._reserve(query)
            return output.fill_(0)
        fused = output_scale is not None or output_block_scale is not None
        taken = not fused and self._takes(query, kv_cache, attn_metadata)
        new = self._new_tokens(key, value, attn_metadata)
        if new is not None and not (taken and self._steps(new, query, kv_cache, attn_metadata)):
            self.do_kv_cache_update(layer, new[0], new[1], kv_cache, new[2])
            new = None
        if not taken:
            return super().forward(
                layer, query, key, value, kv_cache, attn_metadata, output, output_scale,
                output_block_scale,
            )  # fmt: skip
        if new is not None:
            self._ensure_scale_caches(kv_cache)
        rows = attn_metadata.decodes
        if rows:
            sinks = self.sinks if self.sinks is None else self.sinks.float()
            self._decoder(kv_cache, query)(
                query[:rows], kv_cache, attn_metadata.block_table, attn_metadata.seq_lens,
                output[:rows], scaling=self.scale, softcap=float(self.logits_soft_cap),
                sinks=sinks, window=self._window, new=new,
            )  # fmt: skip
        for prompts in attn_metadata.prompts:
            self._attend_prompts(prompts, query, kv_cache, attn_metadata, output)
        return output

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Quantize new tokens [n, heads, D] into their slots [n], where `forward` does not."""
        if self._form is None or not self._fits(kv_cache):
            super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)
            return
        self._ensure_scale_caches(kv_cache)  # the parent fills scales with 1 at its first use
        write_pages(kv_cache, key, value, slot_mapping[: key.shape[0]], self._form)

    def _new_tokens(
        self, key: Tensor | None, value: Tensor | None, metadata: Any
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Keys, values and slots of what this step adds; None where another layer adds it."""
        if key is None or value is None or self.kv_sharing_target_layer_name is not None:
            return None
        slots: Tensor = metadata.slot_mapping[: key.shape[0]]
        return key[: len(slots)], value[: len(slots)], slots

    def _steps(
        self, new: tuple[Tensor, Tensor, Tensor], query: Tensor, kv_cache: Tensor, metadata: Any
    ) -> bool:
        """Whether the decode kernel is to write these tokens: each is one of its sequences' last,
        and they are few enough."""
        key, value, slots = new
        return (
            not metadata.prompts
            and self._decoder(kv_cache, query).writes(metadata.decodes)
            and len(slots) >= metadata.decodes
            and slots.dtype == torch.int64
            and all(x.dtype == query.dtype for x in (key, value))
            and all(x.stride()[1:] == (x.shape[2], 1) for x in (key, value))
        )

    def _takes(self, query: Tensor, kv_cache: Tensor, metadata: Any) -> bool:
        """Whether this batch is attended to here: else it is the parent's."""
        return (
            self._form is not None
            and isinstance(metadata, PackedMetadata)
            and metadata.causal is True
            and metadata.mm_prefix_range_tensor is None
            and metadata.rswa_prefix_lens is None
            and (not metadata.prompts or self._dense is not None)
            and self._fits(kv_cache)
            and supports(self._form, query.dtype, kv_cache.device)
        )

    def _fits(self, kv_cache: Tensor) -> bool:
        if self._fitting[0] != kv_cache.data_ptr():
            assert self._form is not None
            self._fitting = kv_cache.data_ptr(), fits(kv_cache, self._form)
        return self._fitting[1]

    def _decoder(self, kv_cache: Tensor, query: Tensor) -> PageDecoder:
        assert self._form is not None
        return _decoder(
            self._form, kv_cache.shape[1], self.num_heads, kv_cache.shape[2],
            query.dtype, query.device, self.logits_soft_cap > 0,
        )  # fmt: skip

    def _attend_prompts(
        self, prompts: StagedPrompts, query: Tensor, kv_cache: Tensor, metadata: Any, output: Tensor
    ) -> None:
        form, part = self._form, prompts.part
        assert form is not None
        requests = slice(part.first, part.last)
        tokens = slice(part.first_token, part.last_token)
        new = part.last_token - part.first_token
        key, value, turned = staging_buffers(
            self._room, new, kv_cache.shape[1], self.num_heads, form, query
        )
        stage_pages(
            kv_cache, metadata.block_table[requests], metadata.seq_lens[requests], prompts.starts,
            key, value, part.longest, form,
        )  # fmt: skip
        asked = query[tokens]
        if form.rotated:
            rotate_rows(asked, turned)
            asked = turned
        mixed = dense_attention(
            asked, key, value, prompts.query_starts, prompts.starts, part.longest_query,
            part.longest, scaling=self.scale * form.query_factor, softcap=self.logits_soft_cap,
            window=self._window, sinks=self.sinks, version=self._dense,
        )  # fmt: skip
        if form.rotated:
            rotate_rows(mixed, output[tokens], back=True)
        else:
            output[tokens].copy_(mixed)

    def _reserve(self, query: Tensor) -> None:
        """Allocate and compile before memory is measured and graphs are captured."""
        form = self._form
        if form is None or not supports(form, query.dtype, query.device):
            return
        staging_buffers(self._room, query.shape[0], self.num_kv_heads, self.num_heads, form, query)
        _warm(
            form, self.num_kv_heads, self.num_heads, self._page_tokens,
            query.dtype, query.device, self.logits_soft_cap > 0,
        )  # fmt: skip


@functools.cache
def _decoder(
    form: PageFormat,
    heads: int,
    query_heads: int,
    page_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    softcap: bool,
) -> PageDecoder:
    return PageDecoder(form, heads, query_heads, page_tokens, dtype, device, softcap=softcap)


@functools.cache
def _warm(
    form: PageFormat,
    heads: int,
    query_heads: int,
    page_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    softcap: bool,
) -> None:
    """Run every kernel once, on one page."""
    _decoder(form, heads, query_heads, page_tokens, dtype, device, softcap)
    pages = torch.zeros(1, heads, page_tokens, form.row_bytes, dtype=torch.uint8, device=device)
    row = torch.zeros(1, heads, form.dim, dtype=dtype, device=device)
    ones = torch.ones(1, dtype=torch.int32, device=device)
    write_pages(pages, row, row, torch.zeros(1, dtype=torch.int64, device=device), form)
    table = torch.zeros(1, 1, dtype=torch.int32, device=device)
    staged = torch.zeros(1 + PADDING, heads, form.dim, dtype=dtype, device=device)
    stage_pages(pages, table, ones, table[0], staged, staged.clone(), 1, form)
    if form.rotated:
        rotate_rows(row, row.clone())
        rotate_rows(row, row.clone(), back=True)
