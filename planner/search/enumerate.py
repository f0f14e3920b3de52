"""Every configuration worth asking about, of those that the engine can run.

What is left out, because it cannot differ from something that is in, or cannot help:
  - groups as wide as the model's widest head or wider (the whole head is one group already);
  - smoothing where keys keep 16 bits, or per channel, where each channel has its own offset, or
    where a cap on scores or a sink logit would notice it (Gemma 2, gpt-oss);
  - rotation with per-channel keys: it spreads the channels that per-channel scales keep apart;
  - a window as long as the prompt, a chunk as long as the prompt: nothing would be packed, or cut;
  - protection where all layers have 8 bits or more, or where it would lower K or V;
  - K and V that differ where one entry is both (MLA, DeepSeek V4);
  - one shot for a type that is not known: what its layers keep of a whole prompt has no bound;
  - sinks: nothing measured says what they are worth here.
"""

from collections.abc import Sequence

from ..accuracy.predict import outlier_layers, proposed_protections
from ..engine import Engine, Formats
from ..formats.configuration import CHUNKS, GROUP_SIZES
from ..formats.named import weight_format
from ..formats.space import PLAIN, KVLayout, Space
from ..memory.weights import available_weight_bits
from ..models.spec import Attention, CompressedAttention, LatentAttention, ModelSpec
from ..workload import Workload

RESIDUALS = (0, 32, 64, 128)


def enumerate_space(
    spec: ModelSpec,
    workload: Workload,
    engine: Engine,
    protections: tuple[tuple[int, ...], ...],
) -> Space:
    """All configurations of this model and workload that the engine can run.

    `protections`: sets of layers that may be protected, the first of which is no layer.
    """
    head = _widest_head(spec)
    groups = (None, *(g for g in GROUP_SIZES if g < head))
    residuals = [r for r in RESIDUALS if r < workload.context]
    formats = Formats((KVLayout(),), ((),), PLAIN)
    if head:
        formats = engine.formats(spec, workload, groups, residuals, protections)
    rows = formats.rows
    in_chunks = tuple(chunk for chunk in CHUNKS if chunk < workload.context)
    one_shot = () if in_chunks and not spec.understood else (None,)
    names = tuple(engine.weight_formats(spec))
    stored = (weight_format(name) for name in names)
    return Space(
        weights=tuple(row.bits if row is not None else 16 for row in stored)
        if names
        else available_weight_bits(spec),
        chunks=engine.chunks(workload) or (*one_shot, *in_chunks),
        layouts=formats.layouts,
        protections=formats.protections,
        layout=rows[:, 0],
        k_bits=rows[:, 1],
        v_bits=rows[:, 2],
        protection=rows[:, 3],
        weight_formats=names,
        kv_formats=formats.names,
    )


def _widest_head(spec: ModelSpec) -> int:
    """Channels of the widest cached head; 0 where nothing is cached by token."""
    widths = [0]
    for mixer, _ in spec.mixer_counts:
        if isinstance(mixer, Attention):
            widths += [mixer.head_dim, mixer.value_dim]
        elif isinstance(mixer, LatentAttention):
            widths.append(mixer.kv_rank)
        elif isinstance(mixer, CompressedAttention):
            widths.append(mixer.head_dim)
    return max(widths)


def protection_presets(
    spec: ModelSpec, proposed: Sequence[tuple[int, ...]] | None = None
) -> tuple[tuple[int, ...], ...]:
    """No layer; the first and last that cache keys; those known to carry the model's key
    outliers, or, where none is known, the first two and last two; what is `proposed`."""
    probed = proposed_protections(spec) if proposed is None else tuple(proposed)
    caching = [
        i
        for i, layer in enumerate(spec.layers)
        if any(isinstance(m, Attention) and m.shares_kv_with is None for m in layer.mixers)
    ]
    if len(caching) < 8:
        return tuple(dict.fromkeys([(), *probed]))
    wider = tuple(sorted(set(outlier_layers(spec)) & set(caching)))
    presets = ((), (caching[0], caching[-1]), wider or (*caching[:2], *caching[-2:]), *probed)
    return tuple(dict.fromkeys(presets))
