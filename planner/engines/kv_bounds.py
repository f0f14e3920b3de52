"""Bounds on the caches of a model that is not understood: growth a token, and the fixed part."""

from ..formats.configuration import Configuration
from ..memory.kv_cache import kv_bytes
from ..models.spec import Bounds, ModelSpec
from ..workload import Workload
from .transformers import TRANSFORMERS

TOKENS = 131_072
"""Where growth is judged: longer than most windows, so that what slides no longer grows."""


def kv_bounds(spec: ModelSpec) -> tuple[Bounds, ...]:
    """Bounds on `kv_bytes_per_token` and `kv_fixed_bytes` of one sequence in the model's dtype;
    none where every reading agrees."""
    workload = Workload(TOKENS, 0)
    sizes_of_ends = [
        kv_bytes(one, Configuration(), workload, TRANSFORMERS) for one in (spec, *spec.ends)
    ]
    because = f"the caches of {spec.model_type} are not known"
    bounds = []
    for quantity, name in (("kv_bytes_per_token", "per_token"), ("kv_fixed_bytes", "fixed")):
        sizes = [getattr(one, name) for one in sizes_of_ends]
        if min(sizes) < max(sizes):
            bounds.append(Bounds(quantity, min(sizes), max(sizes), because))
    return tuple(bounds)
