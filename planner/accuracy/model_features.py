"""What a model's config and checkpoint say of its sensitivity, beside any measured row."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..light_dataclass import dataclass
from ..models.spec import Attention, ModelSpec, RecurrentState
from .key_noise.attention_noise import AttentionNoise
from .key_noise.key_ranges import KeyRanges
from .retention import OutlierLayers

EFFECTS = {
    "plain": ("cache",),
    "outlier": ("cache", "outlier"),
    "value": ("cache",),
    "weight": ("weight",),
}
"""Random effects that move each component's scale."""
REFERENCE_SIZE_B = 8.0
_NOT_KNOWN = OutlierLayers()
VOCAB_SLACK = 1024
"""A fine-tune adds a few tokens; Llama 2 and 3 are 96,256 apart."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a config says about a model's sensitivity. `parameters_b` in 10^9."""

    family: str | None
    parameters_b: float
    qkv_bias: bool
    qk_norm: bool
    head_dim: int
    layers: int
    attention_fraction: float
    """Share of layers that cache something by token: the others add no cache noise."""
    outliers: OutlierLayers = _NOT_KNOWN
    ranges: KeyRanges | None = None
    """Key noise by the model's own checkpoint, where it was read."""
    attention: AttentionNoise | None = None
    """What formats make of its attention, where a calibration measured it."""

    @property
    def loses_floats(self) -> bool:
        """Whether the keys have biases: a float's error is relative to its value, and what tells
        tokens apart is small beside a bias."""
        return self.qkv_bias

    def scale(self, component: str) -> str:
        """The population's scale that a component has: key outliers that were read from the
        checkpoint are in units of their own."""
        return "read" if component == "outlier" and self.ranges is not None else component

    def effects(self, component: str) -> tuple[tuple[str, str], ...]:
        """(effect, name of its spread between models) of all that move one component's scale."""
        if component == "outlier" and self.ranges is not None:
            return (("cache", "cache"), ("outlier", "read"))
        biased = "biased_outlier" if self.qkv_bias else "outlier"
        return tuple((name, biased if name == "outlier" else name) for name in EFFECTS[component])

    def covariates(self, component: str) -> dict[str, float]:
        """Covariate -> its value in one component's log scale."""
        doublings = float(np.log2(max(self.parameters_b, 0.01) / REFERENCE_SIZE_B))
        if component == "weight":
            return {"size_weight": doublings}
        covariates = {"size_cache": doublings}
        if component == "outlier":
            if self.ranges is not None:  # the checkpoint says what the size makes of its keys
                return {}
            covariates |= {
                "bias_outlier": float(self.qkv_bias),
                "norm_outlier": float(self.qk_norm),
                "size_biased": doublings * self.qkv_bias,
            }
        return covariates


def shape_of(spec: ModelSpec) -> tuple[int, int, int]:
    """(hidden width, layers, KV heads): what tells models of one family apart."""
    heads = [m.kv_heads for m, _ in spec.mixer_counts if isinstance(m, Attention)]
    return spec.hidden, len(spec.layers), max(heads, default=0)


def features_of(
    spec: ModelSpec, family: str | None, outliers: OutlierLayers = _NOT_KNOWN
) -> Features:
    """Read the features off a model description."""
    caching = [
        layer
        for layer in spec.layers
        if any(not isinstance(m, RecurrentState) for m in layer.mixers)
    ]
    mixers = [m for m, _ in spec.mixer_counts if isinstance(m, Attention)]
    return Features(
        family=family,
        parameters_b=spec.parameters / 1e9,
        qkv_bias=any(m.qkv_bias for m in mixers),
        qk_norm=any(m.qk_norm for m in mixers),
        head_dim=max((m.head_dim for m in mixers), default=128),
        layers=len(spec.layers),
        attention_fraction=len(caching) / max(len(spec.layers), 1),
        outliers=outliers,
    )


def family_of(spec: ModelSpec, families: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Which of a fit's `families` a model description is of: the first that fits holds."""
    for family, known in families.items():
        vocab = known["vocab"]
        if (
            spec.model_type in known["model_types"]
            and (vocab is None or abs(spec.vocab - vocab) <= VOCAB_SLACK)
            and (not known.get("ungrouped") or _is_ungrouped(spec))
        ):
            return str(family)
    return None


def _is_ungrouped(spec: ModelSpec) -> bool:
    """Whether each query head has a KV head of its own: Qwen1.5 has, Qwen2, of the same model
    type, has not."""
    mixers = [m for m, _ in spec.mixer_counts if isinstance(m, Attention)]
    return all(m.query_heads == m.kv_heads for m in mixers)


def has_new_cache(spec: ModelSpec) -> bool:
    """Whether it caches latents or states, which no row is about."""
    return any(not isinstance(mixer, Attention) for mixer, _ in spec.mixer_counts)
