"""Which sets of layers may keep more bits than the rest."""

from collections.abc import Sequence

from ..accuracy.predict import outlier_layers, proposed_protections
from ..models.spec import Attention, ModelSpec


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
