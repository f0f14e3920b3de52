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
from .blocks.attention import turns
from .blocks.compressed import compressed_bytes
from .blocks.mla import latent_bytes
from .blocks.norms import norm
from .cache import as_cached, storage_bytes, stored_after, stored_before
from .family_traits import habits
from .forward_step import Attend, Stage, decode, prefill
from .kvpareto_engine import FUSED_LAYERS, in_pieces, scratch
from .layer import layer_effect
from .live_tensors import Liveness, rounded
from .masks import reach, take_masks
from .segmented_attention import take_staged

ELEMENT = {"bfloat16": 2, "float16": 2, "float32": 4}
DYNAMIC_CHUNK = 1024  # tokens; what a chunk that follows a memory target starts from

Softmax = Attention | LatentAttention


def peak(
    spec: ModelSpec, config: Configuration, workload: Workload, attend: Attend, kv: int
) -> Activation:
    """Live bytes of prefill and decode where attention is computed by `attend`.

    `kv`: bytes of a cache whose size the passes do not change; 0 where it grows by concatenation.
    """
    chunk = DYNAMIC_CHUNK if config.dynamic_chunk else config.chunk
    kind = spec.text_type or spec.model_type
    like = Stage(
        batch=workload.batch,
        new=1,
        past=0,
        previous=0,
        element=ELEMENT[spec.dtype],
        hidden=spec.hidden,
        norm=spec.norm,
        habits=habits(kind),
        attend=attend,
        capacity=workload.tokens,
        fused_layer=attend is Attend.PACKED and kind in FUSED_LAYERS,
        packed_weights=attend is Attend.PACKED and config.weight_bits < 16,
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
    decoded = base + max((_pass_peak(spec, stage, False) for stage in steps), default=0)
    room = max(base + eager + captured, prefilled, decoded)
    return Activation(prefilled, decoded, resident, room)


def _between_pieces(spec: ModelSpec, stage: Stage) -> int:
    """The most alive while captured chunks run: their attention, and their logits' place."""
    m = Liveness()
    m.take(stage.batch * spec.vocab * stage.element)
    for mixer, _ in spec.mixer_counts:
        assert isinstance(mixer, Attention)  # in_pieces
        m.drop(take_staged(m, mixer, stage))
    return m.peak


def _cached(spec: ModelSpec, stage: Stage, *, after: bool) -> list[int]:
    """Bytes of every layer's cache storage before or after a stage, as the allocator counts."""
    if stage.attend in (Attend.PACKED, Attend.DEQUANTIZED):
        return [0] * len(spec.layers)
    sizes: dict[Layer, int] = {}
    for layer in spec.layers:
        if layer not in sizes:
            sizes[layer] = sum(_mixer_cache(mixer, stage, after) for mixer in layer.mixers)
    return [sizes[layer] for layer in spec.layers]


def _mixer_cache(mixer: Mixer, stage: Stage, after: bool) -> int:
    if isinstance(mixer, Attention):
        stored = stored_after if after else stored_before
        return sum(storage_bytes(as_cached(mixer), stored(reach(mixer), stage), stage))
    if isinstance(mixer, LatentAttention):
        return sum(latent_bytes(mixer, stage.total if after else stage.past, stage))
    if isinstance(mixer, CompressedAttention):
        return compressed_bytes(mixer, stage, after=after)
    if not after and not stage.past:
        return 0
    state = mixer.state * ELEMENT.get(mixer.state_dtype or "", stage.element)
    conv = mixer.conv * ELEMENT.get(mixer.conv_dtype or "", stage.element)
    return rounded(stage.batch * state) + rounded(stage.batch * conv)


def _pass_peak(spec: ModelSpec, stage: Stage, full_logits: bool) -> int:
    before, after = _cached(spec, stage, after=False), _cached(spec, stage, after=True)
    m = Liveness(sum(before))
    if stage.past:
        m.take(stage.batch * spec.vocab * stage.element)  # the pass before's logits
    stream = stage.bytes(spec.hidden)
    embedded = m.take(stream)
    if stage.habits.position_embeddings:
        embedded += m.take(stage.new * spec.hidden * stage.element)
    embedded += _beside_embeddings(m, spec, stage)
    mixers = [x for x, _ in spec.mixer_counts if isinstance(x, Attention | LatentAttention)]
    tables = _positions(m, mixers, stage)
    masks = take_masks(m, mixers, stage)
    given = _layers(m, spec, stage, before, after)
    normed = norm(m, spec.norm, stage.rows, spec.hidden, stage)
    m.drop(given, embedded, tables, masks)
    rows = stage.rows if full_logits else stage.batch
    logits = m.take(rows * spec.vocab * stage.element)
    if spec.logit_softcap or stage.habits.scaled_logits:
        m.touch(logits)
    m.drop(normed)
    return m.peak


def _layers(
    m: Liveness,
    spec: ModelSpec,
    stage: Stage,
    before: Sequence[int],
    after: Sequence[int],
) -> int:
    """All decoder layers; takes the last one's output. The first one's input is the embeddings."""
    effects: dict[Layer, int] = {}
    streams = stage.habits.streams
    copied = stage.habits.scaled_embeddings or streams > 1
    given = m.take(streams * stage.bytes(spec.hidden)) if copied else 0
    kept = 0
    for layer, old, new in zip(spec.layers, before, after, strict=True):
        if layer not in effects:
            effects[layer] = layer_effect(layer, stage)
        m.peak = max(m.peak, m.live + effects[layer])
        m.live += new - old
        given = given or m.take(stage.bytes(spec.hidden))
        kept = kept or m.take(_kept_weights(layer, stage))
    return given + kept


PER_LAYER = 256  # channels that Gemma 3n looks up for every token and layer


def _beside_embeddings(m: Liveness, spec: ModelSpec, stage: Stage) -> int:
    """Gemma 3n: what its streams are stacked from, and the per-layer inputs."""
    if stage.habits.streams == 1:
        return 0
    projected = m.take(stage.habits.streams * stage.bytes(spec.hidden))
    return projected + m.take(stage.bytes(len(spec.layers) * PER_LAYER))


def _kept_weights(layer: Layer, stage: Stage) -> int:
    """Bytes of attention weights that a layer's caller holds until the next layer returns."""
    if stage.attend is not Attend.EAGER or not stage.habits.keeps_weights:
        return 0
    return sum(
        stage.rows * x.query_heads * stored_after(reach(x), stage) * stage.element
        for x in layer.mixers
        if isinstance(x, Attention)
    )


def _positions(m: Liveness, mixers: Sequence[Softmax], stage: Stage) -> int:
    """Token positions, and cosines and sines for each width of rotary turn."""
    held = m.take(8 * stage.new)
    by_reach = stage.habits.tables_by_reach
    for width, _ in {(_rotary_width(x, stage), by_reach and reach(x)) for x in mixers}:
        m.touch(3 * stage.new * width * 4)
        element = 4 if stage.habits.float_rotary else stage.element
        held += sum(m.take(stage.new * width * element) for _ in ("cos", "sin"))
    return held


def _rotary_width(mixer: Softmax, stage: Stage) -> int:
    if isinstance(mixer, LatentAttention):
        return mixer.rope_dim
    return (mixer.rotary_dim or mixer.head_dim) if turns(mixer, stage) else 0
