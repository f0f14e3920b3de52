"""One decoder layer: residual stream, norms, mixers and FFN, in the order of the family."""

from functools import lru_cache

from ...models.spec import (
    FFN,
    Attention,
    CompressedAttention,
    DenseFFN,
    LatentAttention,
    Layer,
    MoEFFN,
)
from .block_traits import Order
from .blocks import ffn as dense
from .blocks.attention import attention
from .blocks.compressed import compressed_attention
from .blocks.mla import latent_attention
from .blocks.moe import moe
from .blocks.norms import norm
from .blocks.recurrent import recurrent
from .forward_step import Stage
from .live_tensors import Liveness


@lru_cache(maxsize=4096)
def layer_effect(layer: Layer, stage: Stage) -> int:
    """Peak of one layer in bytes above what is alive when it is called, its input included."""
    m = Liveness()
    if stage.habits.order is Order.PARALLEL or layer.parallel:
        _parallel(m, layer, stage)
    else:
        _sequential(m, layer, stage)
    return m.peak


def _sequential(m: Liveness, layer: Layer, stage: Stage) -> None:
    """x + mix(x), then x + feed(x); the layer's input belongs to its caller."""
    streams = stage.habits.streams
    if streams > 1:  # predictions of all streams, and the low-rank branch
        m.take((streams + 1) * stage.bytes(stage.hidden))
    first = _norm_before(m, stage) if layer.mixers else 0
    if layer.mixers:
        out = _mix(m, layer, stage)
        m.drop(0 if stage.habits.keeps_normed else first)
        out = _norm_after(m, layer, out, stage)
        m.take(stage.bytes(stage.hidden))  # the residual stream
        if streams > 1:  # it joined to the branch, and that halved, under names of their own
            m.take(2 * stage.bytes(stage.hidden))
        m.drop(0 if stage.habits.keeps_attention or stage.fused_layer else out)
    if layer.ffn is None:
        return
    if stage.habits.dense_beside and isinstance(layer.ffn, MoEFFN):
        _dense_branch(m, layer.ffn, stage)
    second = _norm_before(m, stage)
    inline = stage.habits.inline_ffn
    out = _feed(m, layer.ffn, stage, release=second if inline else 0)
    m.drop(0 if inline else second)
    _norm_after(m, layer, out, stage)
    m.take(stage.bytes(stage.hidden))


def _norm_before(m: Liveness, stage: Stage) -> int:
    return 0 if stage.habits.order is Order.POST_NORM else _norm(m, stage)


def _norm_after(m: Liveness, layer: Layer, out: int, stage: Stage) -> int:
    """The block's output normalised, where the family does so."""
    after = stage.habits.order in (Order.POST_NORM, Order.SANDWICH) or layer.sandwich_norms
    if not after:
        return out
    normed = _norm(m, stage)
    m.drop(out)
    return normed


def _dense_branch(m: Liveness, ffn: MoEFFN, stage: Stage) -> None:
    """Gemma 4: norm, dense FFN and norm, whose two results stay while the experts run."""
    normed = _norm(m, stage)
    dense.gated(m, ffn.activation, ffn.shared_width, stage)
    m.drop(normed)
    _norm(m, stage)


def _parallel(m: Liveness, layer: Layer, stage: Stage) -> None:
    """Attention's output waits while the FFN works on the same normalised input."""
    normed = _norm(m, stage)
    if any(isinstance(x, Attention) and x.expanded_heads for x in layer.mixers):
        normed += _norm(m, stage)  # Falcon's groups: the FFN has a norm of its own, made first
    mixed = _mix(m, layer, stage)
    fed = _feed(m, layer.ffn, stage)
    both = m.take(stage.bytes(stage.hidden))
    m.take(stage.bytes(stage.hidden))
    m.drop(both, mixed, fed, normed)


def _norm(m: Liveness, stage: Stage) -> int:
    return norm(m, stage.norm, stage.rows, stage.hidden, stage)


def _mix(m: Liveness, layer: Layer, stage: Stage) -> int:
    """Every mixer of the layer on the same input; parallel ones are summed."""
    out = 0
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            part = attention(m, mixer, stage)
        elif isinstance(mixer, LatentAttention):
            part = latent_attention(m, mixer, stage)
        elif isinstance(mixer, CompressedAttention):
            part = compressed_attention(m, mixer, stage)
        else:
            part = recurrent(m, mixer, stage)
        if out:
            total = m.take(stage.bytes(stage.hidden))
            m.drop(out, part)
            part = total
        out = part
    return out


def _feed(m: Liveness, ffn: FFN | None, stage: Stage, release: int = 0) -> int:
    if ffn is None:
        return 0
    if not isinstance(ffn, DenseFFN):
        return moe(m, ffn, stage)
    if not ffn.gated:
        return dense.plain(m, ffn.activation, ffn.width, stage, release)
    run = dense.gated_fused if stage.habits.fused_gate else dense.gated
    return run(m, ffn.activation, ffn.width, stage)
