"""One decoder layer: residual stream, norms, mixers and FFN, in the order of the family.

Blocks that few models have are imported where a layer has them: a plan starts without the others.
"""

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
from .blocks.norms import norm
from .forward_step import ForwardStep
from .live_tensors import LiveTensors


@lru_cache(maxsize=4096)
def layer_effect(layer: Layer, step: ForwardStep) -> int:
    """Peak of one layer in bytes above what is alive when it is called, its input included."""
    live = LiveTensors()
    if step.traits.order is Order.PARALLEL or layer.parallel:
        _parallel(live, layer, step)
    else:
        _sequential(live, layer, step)
    return live.peak


def _sequential(live: LiveTensors, layer: Layer, step: ForwardStep) -> None:
    """x + mix(x), then x + feed(x); the layer's input belongs to its caller."""
    streams = step.traits.streams
    if streams > 1:  # predictions of all streams, and the low-rank branch
        live.take((streams + 1) * step.bytes(step.hidden))
    first = _norm_before(live, step) if layer.mixers else 0
    if layer.mixers:
        out = _mix(live, layer, step)
        live.drop(0 if step.traits.keeps_normed else first)
        out = _norm_after(live, layer, out, step)
        live.take(step.bytes(step.hidden))  # the residual stream
        if streams > 1:  # it joined to the branch, and that halved, under names of their own
            live.take(2 * step.bytes(step.hidden))
        live.drop(0 if step.traits.keeps_attention or step.fused_layer else out)
    if layer.ffn is None:
        return
    if step.traits.dense_beside and isinstance(layer.ffn, MoEFFN):
        _dense_branch(live, layer.ffn, step)
    second = _norm_before(live, step)
    inline = step.traits.inline_ffn
    out = _feed(live, layer.ffn, step, release=second if inline else 0)
    live.drop(0 if inline else second)
    _norm_after(live, layer, out, step)
    live.take(step.bytes(step.hidden))


def _norm_before(live: LiveTensors, step: ForwardStep) -> int:
    return 0 if step.traits.order is Order.POST_NORM else _norm(live, step)


def _norm_after(live: LiveTensors, layer: Layer, out: int, step: ForwardStep) -> int:
    """The block's output normalised, where the family does so."""
    after = step.traits.order in (Order.POST_NORM, Order.SANDWICH) or layer.sandwich_norms
    if not after:
        return out
    normed = _norm(live, step)
    live.drop(out)
    return normed


def _dense_branch(live: LiveTensors, ffn: MoEFFN, step: ForwardStep) -> None:
    """Gemma 4: norm, dense FFN and norm, whose two results stay while the experts run."""
    normed = _norm(live, step)
    dense.gated(live, ffn.activation, ffn.shared_width, step)
    live.drop(normed)
    _norm(live, step)


def _parallel(live: LiveTensors, layer: Layer, step: ForwardStep) -> None:
    """Attention's output waits while the FFN works on the same normalised input."""
    normed = _norm(live, step)
    if any(isinstance(x, Attention) and x.expanded_heads for x in layer.mixers):
        normed += _norm(live, step)  # Falcon's groups: the FFN has a norm of its own, made first
    mixed = _mix(live, layer, step)
    fed = _feed(live, layer.ffn, step)
    both = live.take(step.bytes(step.hidden))
    live.take(step.bytes(step.hidden))
    live.drop(both, mixed, fed, normed)


def _norm(live: LiveTensors, step: ForwardStep) -> int:
    return norm(live, step.norm, step.rows, step.hidden, step)


def _mix(live: LiveTensors, layer: Layer, step: ForwardStep) -> int:
    """Every mixer of the layer on the same input; parallel ones are summed."""
    out = 0
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            part = attention(live, mixer, step)
        elif isinstance(mixer, LatentAttention):
            from .blocks.mla import latent_attention

            part = latent_attention(live, mixer, step)
        elif isinstance(mixer, CompressedAttention):
            from .blocks.compressed import compressed_attention

            part = compressed_attention(live, mixer, step)
        else:
            from .blocks.recurrent import recurrent

            part = recurrent(live, mixer, step)
        if out:
            total = live.take(step.bytes(step.hidden))
            live.drop(out, part)
            part = total
        out = part
    return out


def _feed(live: LiveTensors, ffn: FFN | None, step: ForwardStep, release: int = 0) -> int:
    if ffn is None:
        return 0
    if not isinstance(ffn, DenseFFN):
        from .blocks.moe import moe

        return moe(live, ffn, step)
    if not ffn.gated:
        return dense.plain(live, ffn.activation, ffn.width, step, release)
    run = dense.gated_fused if step.traits.fused_gate else dense.gated
    return run(live, ffn.activation, ffn.width, step)
