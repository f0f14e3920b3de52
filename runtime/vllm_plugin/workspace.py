"""Memory for staged prompts: vLLM's workspace, one for all layers, counted when vLLM profiles."""

import torch
from torch import Tensor
from vllm.v1.worker.workspace import current_workspace_manager

from ..kernels.paged.page_format import PageFormat
from ..kernels.paged.stage_pages import PADDING


def staging_buffers(
    room: int, new: int, heads: int, query_heads: int, form: PageFormat, query: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values [room and padding, heads, D], rotated queries [`new`, query heads, D].

    They are the caller's until its next launch on the stream: layers use them in turn.
    """
    dtype: torch.dtype = query.dtype
    turned = new if form.rotated else 0
    key, value, asked = current_workspace_manager().get_simultaneous(
        ((room + PADDING, heads, form.dim), dtype),
        ((room + PADDING, heads, form.dim), dtype),
        ((turned, query_heads, form.dim), dtype),
    )
    return key, value, asked
