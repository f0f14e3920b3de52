"""Attention of one kind in a job: what its pairs cost, and how the runtime takes chunks of it."""

import numpy as np
import numpy.typing as npt

from ..light_dataclass import dataclass
from ..memory.activation.kvpareto_engine import stages_segments
from ..memory.activation.workspace import (
    EIGHT_DIM,
    FEW_QUERIES,
    SEGMENT,
    block_heads,
    latent_piece,
    segment_tokens,
)
from ..models.spec import Attention, LatentAttention, ModelSpec
from ..models.token_work import AttentionWork
from ..workload import Workload
from .step_cuts import cuts
from .unread_rows import unread_rows

Floats = npt.NDArray[np.float64]
Number = Floats | float
_NO_LIMIT = float(2**40)  # the reach of attention to all tokens before


@dataclass(frozen=True, slots=True, eq=False)
class AttentionGroup:
    """`layers` layers with attention of one kind; as AttentionWork, and how the runtime takes a
    chunk of it."""

    layers: Number
    query_heads: Number
    flops_per_pair: Number
    cache_elements: Number
    group: Number
    reach: Number
    """Tokens a query sees at most."""
    seen: Number
    """Tokens a query sees in a prompt longer than `reach`, in the mean."""
    staged: Number
    """1 where a chunk's past is written out in segments for a library's attention."""
    segment: Number
    """Tokens of a segment of a chunk of more than FEW_QUERIES tokens."""
    eight: Number
    """1 where Hopper's kernel of 8 bits takes heads of this size, which see all tokens before."""
    expanded: Number
    """Elements of keys and values that each cached token is expanded to again for each chunk."""
    expand_flops: Number
    """Operations of that."""
    unread: Number
    """1 where the last layer, which `one_row` is of, is one of them."""
    latent: Number
    """1 where what is cached are latents."""
    heads: Number
    """KV heads of all sequences, as a step's blocks take them: parts of their query heads apart.
    [cuts, 1, 1, 1]: of the batch, then of larger ones that are cut better (step_cuts.py)."""
    blocks: Number
    """A step's blocks: parts of the tokens of each of them, with the same axes."""


OF_CUTS = ("heads", "blocks")
"""Fields with an axis of cuts."""

NOTHING = AttentionGroup(
    0.0, 1.0, 0.0, 0.0, 1.0, _NO_LIMIT, 0.0, 0.0, float(SEGMENT), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
)  # fmt: skip
"""No layers: what jobs with fewer kinds are filled up with."""


def attention_group(spec: ModelSpec, workload: Workload, work: AttentionWork) -> AttentionGroup:
    """The layers of one kind of a model's attention, at a workload."""
    mixer = work.mixer
    staged = isinstance(mixer, Attention) and stages_segments(mixer, 2, workload.tokens)
    segment, kv_heads = SEGMENT, work.query_heads // max(1, work.group)
    expanded = flops = 0
    per_pair = work.flops_per_pair
    if isinstance(mixer, Attention):
        dims = mixer.head_dim, mixer.value_dim
        segment = segment_tokens(mixer.kv_heads, *dims, FEW_QUERIES + 1)
    elif isinstance(mixer, LatentAttention):
        wide = mixer.nope_dim + mixer.value_dim
        segment = latent_piece(mixer.query_heads, wide)
        if workload.batch == 1:
            staged, expanded = True, mixer.query_heads * (wide + mixer.rope_dim)
            flops = 2 * mixer.query_heads * wide * mixer.kv_rank
        else:  # absorbed: as wide as the latents themselves
            per_pair = 2 * mixer.query_heads * (2 * mixer.kv_rank + mixer.rope_dim)
    return AttentionGroup(
        float(work.layers),
        float(work.query_heads),
        float(per_pair),
        float(work.cache_elements),
        float(work.group),
        float(work.reach or _NO_LIMIT),
        _seen(work, workload.context),
        float(staged),
        float(segment),
        float(staged and work.reach is None and work.cache_elements == 2 * EIGHT_DIM * kv_heads),
        float(expanded),
        float(flops),
        float(mixer == unread_rows(spec).mixer),
        float(isinstance(mixer, LatentAttention)),
        *_blocks(work, workload),
    )


def _blocks(work: AttentionWork, workload: Workload) -> tuple[Number, Number]:
    """Heads and blocks of a step."""
    if not isinstance(work.mixer, Attention):
        return 0.0, 0.0
    heads = work.mixer.kv_heads * (work.group // block_heads(work.group))
    return cuts(heads, workload.batch, min(workload.tokens, work.reach or workload.tokens))


def _seen(work: AttentionWork, context: int) -> float:
    """Tokens that a query of a prompt sees in the mean: in a window all that are there and then
    as many as it holds, in chunks of a local attention half of one."""
    reach = work.reach
    if reach is None or reach >= context:
        return context / 2
    if isinstance(work.mixer, Attention) and work.mixer.local_chunk is not None:
        whole, rest = divmod(context, reach)
        return (whole * reach**2 + rest**2) / 2 / context
    return (reach * (context - reach) + reach**2 / 2) / context
