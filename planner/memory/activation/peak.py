"""Whole forward passes: embedding, masks, rotary tables, layers, final norm, logits.

The embeddings stay alive through the whole pass (a local name of the model's forward), and so
does each layer's input until its caller has the output. Engines that run these passes
differ in attention and cache alone (Attend).
"""

from collections.abc import Sequence
from dataclasses import replace

from ...engine import Activation
from ...formats.configuration import Configuration
from ...models.spec import Attention, CompressedAttention, LatentAttention, Layer, Mixer, ModelSpec
from ...workload import Workload
from .blocks.attention import has_rotary
from .blocks.norms import norm
from .cache import as_cached, storage_bytes, stored_after, stored_before
from .family_traits import block_traits_of
from .forward_step import Attend, ForwardStep, decode, prefill
from .kvpareto_engine import FUSED_LAYERS, attended, in_pieces, scratch
from .layer import layer_effect
from .live_tensors import LiveTensors, rounded
from .masks import reach, take_masks

ELEMENT = {"bfloat16": 2, "float16": 2, "float32": 4}
DYNAMIC_CHUNK = 1024  # tokens; what a chunk that follows a memory target starts from

Softmax = Attention | LatentAttention


def peak(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    attend: Attend,
    kv: int,
    *,
    recent: bool = False,
    in_8_bits: bool = False,
) -> Activation:
    """Live bytes of prefill and decode where attention is computed by `attend`.

    `recent`, `in_8_bits`: ForwardStep's. `kv`: bytes of a cache whose
    size the passes do not change; 0 where it grows by concatenation.
    """
    chunk = DYNAMIC_CHUNK if config.dynamic_chunk else config.chunk
    kind = spec.decoder_type
    like = ForwardStep(
        batch=workload.batch,
        new=1,
        past=0,
        previous=0,
        element=ELEMENT[spec.dtype],
        hidden=spec.hidden,
        norm=spec.norm,
        traits=block_traits_of(kind),
        attend=attend,
        capacity=workload.tokens,
        recent=recent,
        fused_layer=attend is Attend.PACKED and kind in FUSED_LAYERS,
        packed_weights=attend is Attend.PACKED and config.weight_bits < 16,
        in_8_bits=in_8_bits,
        rounded_rows=attend is Attend.PACKED and config.activation_bits < 16,
    )
    prompt = rounded(8 * workload.batch * workload.context)
    packs = attend is Attend.PACKED
    base = prompt + kv + (scratch(spec, config, workload, chunk) if packs else 0)
    stages = list(prefill(like, workload.context, chunk))
    resident = base + sum(_cached(spec, stages[-1], after=True))
    captured = between = grown = 0
    if packs and in_pieces(spec, workload, config.chunk):
        # Captured over an empty cache; when the pieces run, only attention between them allocates.
        full, *stages = stages
        captured = _pass_peak(spec, replace(full, past=1), workload.full_logits)
        between = _between_pieces(spec, full)
        # What of the scratch comes after that, for the rest of the prompt.
        first = scratch(spec, config, workload, chunk, rest=False)
        grown = scratch(spec, config, workload, chunk) - first
    eager = max([between, *(_pass_peak(spec, x, workload.full_logits) for x in stages)])
    prefilled = base + max(eager, captured - grown)
    steps = decode(like, workload, chunk)
    decoded = base + max((_pass_peak(spec, step, False) for step in steps), default=0)
    room = max(base + eager + captured, prefilled, decoded)
    return Activation(prefilled, decoded, resident, room)


def _between_pieces(spec: ModelSpec, step: ForwardStep) -> int:
    """The most alive while captured chunks run: their attention, and their logits' place."""
    live = LiveTensors()
    live.take(step.batch * spec.vocab * step.element)
    for mixer, _ in spec.mixer_counts:
        if isinstance(mixer, Attention):
            live.drop(attended(live, mixer, step))
        elif isinstance(mixer, LatentAttention):
            from .packed_latents import take_latents

            live.drop(take_latents(live, mixer, step))
    return live.peak


def _cached(spec: ModelSpec, step: ForwardStep, *, after: bool) -> list[int]:
    """Bytes of every layer's cache storage before or after a stage, as the allocator counts."""
    if step.attend in (Attend.PACKED, Attend.DEQUANTIZED):
        return [0] * len(spec.layers)
    distinct, numbers = spec.layer_kinds
    sizes = [sum(_mixer_cache(mixer, step, after) for mixer in x.mixers) for x in distinct]
    return [sizes[number] for number in numbers]


def _mixer_cache(mixer: Mixer, step: ForwardStep, after: bool) -> int:
    if isinstance(mixer, Attention):
        stored = stored_after if after else stored_before
        return sum(storage_bytes(as_cached(mixer), stored(reach(mixer), step), step))
    if isinstance(mixer, LatentAttention):
        from .blocks.mla import latent_bytes

        return sum(latent_bytes(mixer, step.total if after else step.past, step))
    if isinstance(mixer, CompressedAttention):
        from .blocks.compressed import compressed_bytes

        return compressed_bytes(mixer, step, after=after)
    if not after and not step.past:
        return 0
    state = mixer.state * ELEMENT.get(mixer.state_dtype or "", step.element)
    conv = mixer.conv * ELEMENT.get(mixer.conv_dtype or "", step.element)
    return rounded(step.batch * state) + rounded(step.batch * conv)


def _pass_peak(spec: ModelSpec, step: ForwardStep, full_logits: bool) -> int:
    before, after = _cached(spec, step, after=False), _cached(spec, step, after=True)
    live = LiveTensors(sum(before))
    if step.past:
        live.take(step.batch * spec.vocab * step.element)  # the pass before's logits
    stream = step.bytes(spec.hidden)
    embedded = live.take(stream)
    if step.traits.position_embeddings:
        embedded += live.take(step.new * spec.hidden * step.element)
    embedded += _beside_embeddings(live, spec, step)
    mixers = [x for x, _ in spec.mixer_counts if isinstance(x, Attention | LatentAttention)]
    tables = _positions(live, mixers, step)
    masks = take_masks(live, mixers, step)
    given = _layers(live, spec, step, before, after)
    normed = norm(live, spec.norm, step.rows, spec.hidden, step)
    live.drop(given, embedded, tables, masks)
    rows = step.rows if full_logits else step.batch
    logits = live.take(rows * spec.vocab * step.element)
    if spec.logit_softcap or step.traits.scaled_logits:
        live.touch(logits)
    live.drop(normed)
    return live.peak


def _layers(
    live: LiveTensors,
    spec: ModelSpec,
    step: ForwardStep,
    before: Sequence[int],
    after: Sequence[int],
) -> int:
    """All decoder layers; takes the last one's output. The first one's input is the embeddings."""
    distinct, numbers = spec.layer_kinds
    effects = [layer_effect(layer, step) for layer in distinct]
    streams = step.traits.streams
    copied = step.traits.scaled_embeddings or streams > 1
    given = live.take(streams * step.bytes(spec.hidden)) if copied else 0
    kept = 0
    for number, old, new in zip(numbers, before, after, strict=True):
        live.peak = max(live.peak, live.nbytes + effects[number])
        live.nbytes += new - old
        given = given or live.take(step.bytes(spec.hidden))
        kept = kept or live.take(_kept_weights(distinct[number], step))
    return given + kept


PER_LAYER = 256  # channels that Gemma 3n looks up for every token and layer


def _beside_embeddings(live: LiveTensors, spec: ModelSpec, step: ForwardStep) -> int:
    """Gemma 3n: what its streams are stacked from, and the per-layer inputs."""
    if step.traits.streams == 1:
        return 0
    projected = live.take(step.traits.streams * step.bytes(spec.hidden))
    return projected + live.take(step.bytes(len(spec.layers) * PER_LAYER))


def _kept_weights(layer: Layer, step: ForwardStep) -> int:
    """Bytes of attention weights that a layer's caller holds until the next layer returns."""
    if step.attend is not Attend.EAGER or not step.traits.keeps_weights:
        return 0
    return sum(
        step.rows * x.query_heads * stored_after(reach(x), step) * step.element
        for x in layer.mixers
        if isinstance(x, Attention)
    )


def _positions(live: LiveTensors, mixers: Sequence[Softmax], step: ForwardStep) -> int:
    """Token positions, and cosines and sines for each width of rotary embedding."""
    held = live.take(8 * step.new)
    by_reach = step.traits.tables_by_reach
    for width, _ in {(_rotary_width(x, step), by_reach and reach(x)) for x in mixers}:
        live.touch(3 * step.new * width * 4)
        element = 4 if step.traits.float_rotary else step.element
        held += sum(live.take(step.new * width * element) for _ in ("cos", "sin"))
    return held


def _rotary_width(mixer: Softmax, step: ForwardStep) -> int:
    if isinstance(mixer, LatentAttention):
        return mixer.rope_dim
    return (mixer.rotary_dim or mixer.head_dim) if has_rotary(mixer, step) else 0
