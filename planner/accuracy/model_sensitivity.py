"""How sensitive one model is to quantization noise: its own rows, its family's, or anyone's.

The fit leaves a log scale for each noise component with its standard deviation. A model with
rows has its own; another member of a known family gets the family's mean and the spread between
models; anything else the population's and the spread between families too. What a config says
(size, key bias, key norms) moves the mean in every case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from ..light_dataclass import dataclass
from ..models.spec import ModelSpec
from .formula import Floats
from .key_noise.at_hand import ranges_of
from .key_noise.attention_noise import AttentionNoise
from .key_noise.key_ranges import KeyRanges, bundled_ranges
from .model_features import Features, family_of, features_of, has_new_cache, shape_of
from .retention import OutlierLayers

COMPONENTS = ("plain", "outlier", "value", "weight")
STRANGE_BIASES = 3.0
"""By which key biases differ more between families where a family has no rows of a cache: left-out
models, whose distance sets the width of intervals at a third of a normal's, mostly have kin."""
NEW_CACHE_SPREAD = 2.0
"""Latents and recurrent states: noise acts on them in ways no row has seen; on their weights it
acts as on others'."""
SIZE_CLASS = 1.0
"""Doublings of the parameters, up or down, within which a measured model speaks for another."""
ROWS_OF_A_SIZE = 4
"""A model of fewer rows does not speak for its size."""
FAMILIES_OF_A_SIZE = 2
"""Nor does a single family: its models are alike in more than their size."""
SIZE_SPREAD = 0.45
"""Standard deviation in log noise for each squared doubling beyond: what recall models of 7 million
parameters ask for, eight doublings below, and three of 0.1 to 0.5 billion, two to four below."""
NEW_CACHE_DOUBT = 0.5
"""Bits by which a format of such a cache may be worth less or more than in caches that rows are of:
an estimate, which no row has tried."""
NEW_CACHE = "nothing is published on caches like this model's: take the bounds, not the middle"
_OTHER_SIZE = "no model of about this size was measured: the interval is wider for it"


@dataclass(frozen=True, slots=True)
class ModelSensitivity:
    """Log scales of the noise components (order of COMPONENTS) and where they come from."""

    features: Features
    mean: Floats
    sd: Floats
    z: float
    """Half-width of the interval in those standard deviations."""
    provenance: str
    notes: tuple[str, ...] = ()
    other_size: Floats | float = 0.0
    """Standard deviation more in all scales, since no model of about this size was measured. A fit
    to the model's own rows does without: they say what its size makes of it."""
    of_weights: bool = False
    """Whether its rows are of weights alone, so that the scales of its cache are a stranger's."""
    of_tables: bool = False
    """Whether its cache is known from other people's tables alone: neither its keys were read, nor
    was it run here. Its next table has another harness, other tasks and formats of its own."""
    own: bool = False
    """Whether the payload holds this model's own noise (calibrated_noise.py), which goes before
    these scales; `z` is then a shift of log noise."""

    @property
    def doubt(self) -> float:
        """Bits by which a quantized cache may be worth less or more at the ends of an interval."""
        return NEW_CACHE_DOUBT if self.provenance == "unknown" else 0.0

    @property
    def spread(self) -> Floats:
        """`sd` and `other_size` together, what a prediction's interval is made of."""
        total: Floats = np.hypot(self.sd, self.other_size)
        return total


@dataclass(frozen=True)
class FittedSensitivities:
    """The fitted scales of all models, families and the population (a fit's JSON)."""

    payload: Mapping[str, Any]

    @cached_property
    def _population(self) -> tuple[dict[str, int], Floats, Floats]:
        table = self.payload["population"]
        index = {name: i for i, name in enumerate(table["names"])}
        return index, np.array(table["mean"]), np.array(table["covariance"])

    def known(self, key: str, features: Features) -> ModelSensitivity:
        """A model with rows of its own."""
        model = self.payload["models"][key]
        mean, sd = np.array(model["mean"]), np.array(model["sd"])
        own = self.payload.get("own_noise") if key == self.payload.get("own") else None
        z = self.payload["z"]["known"] if own is None else own["z"]
        of_tables = model["provenance"] == "published"
        return ModelSensitivity(
            features, mean, sd, z, model["provenance"], own=own is not None, of_tables=of_tables
        )

    def unseen(self, features: Features, notes: tuple[str, ...] = ()) -> ModelSensitivity:
        """A model without rows: its family's scales if that has rows, else the population's."""
        index, mean, covariance = self._population
        spread = self.payload["spread"]
        family_known = f"family:cache:{features.family}" in index
        kin = [m for m in self.payload["models"].values() if m["family"] == features.family]
        has_cache = any(model["cache_rows"] for model in kin)
        means, variances = [], []
        for component in COMPONENTS:
            row = np.zeros(len(index))
            row[index[f"scale:{features.scale(component)}"]] = 1.0
            for name, value in features.covariates(component).items():
                if f"covariate:{name}" in index:  # fits of before lack the newest
                    row[index[f"covariate:{name}"]] = value
            between = 0.0
            for effect, between_models in features.effects(component):
                between += spread[between_models] ** 2
                if between_models == "read":  # the checkpoint says what a family would
                    continue
                own = spread.get(f"family_{between_models}", spread[f"family_{effect}"])
                if between_models == "biased_outlier" and not has_cache:
                    between += (STRANGE_BIASES * own) ** 2
                elif not family_known:
                    between += own**2
                if family_known:
                    row[index[f"family:{effect}:{features.family}"]] = 1.0
            means.append(float(row @ mean))
            variances.append(float(row @ covariance @ row) + between + spread["misfit"] ** 2)
        if not family_known:
            notes = (*notes, "no rows of this model family: the interval spans all families")
        sd, z = np.sqrt(variances), self.payload["z"]["unseen"]
        cache, weights = (
            SIZE_SPREAD * self._sizes_beyond(features.parameters_b, rows) ** 2
            for rows in ("cache_rows", "rows")
        )
        other = np.array([cache, cache, cache, weights])
        notes = (*notes, _OTHER_SIZE) if other.any() else notes
        scales, of_tables = np.array(means), features.ranges is None
        return ModelSensitivity(
            features, scales, sd, z, "transferred", notes, other, of_tables=of_tables
        )

    def _sizes_beyond(self, parameters_b: float, rows: str) -> float:
        """Doublings between this size and the class of the nearest model with `rows`, its own or
        another family's, whichever is further; 0 within one."""
        nearest: dict[str, float] = {}
        for model in self.payload["models"].values():
            if model[rows] >= ROWS_OF_A_SIZE:
                away = abs(float(np.log2(max(parameters_b, 1e-6) / model["parameters_b"])))
                nearest[model["family"]] = min(away, nearest.get(model["family"], away))
        two = sorted(nearest.values())[:FAMILIES_OF_A_SIZE]
        return max(two[-1] - SIZE_CLASS, 0.0) if two else 0.0

    def of(self, spec: ModelSpec) -> ModelSensitivity:
        """The scales that hold for a model description."""
        sensitivity = self._of(spec)
        ranges = sensitivity.features.ranges
        said = ranges.said() if ranges is not None else ""
        return replace(sensitivity, notes=(*sensitivity.notes, said)) if said else sensitivity

    def _of(self, spec: ModelSpec) -> ModelSensitivity:
        key, same_shape = self._identify(spec)
        features = features_of(spec, self._family(spec), self._outliers(key or same_shape))
        features = replace(
            features, ranges=self._ranges(spec, key or same_shape), attention=self._attention(key)
        )
        if key is None and features.family is None and has_new_cache(spec):
            sensitivity = self.unseen(features, (NEW_CACHE,))
            wider = [1.0 if name == "weight" else NEW_CACHE_SPREAD for name in COMPONENTS]
            return replace(sensitivity, sd=sensitivity.sd * np.array(wider), provenance="unknown")
        if key is not None:
            return self.with_rows(key, features)
        return self.unseen(features) if same_shape is None else self.sister(same_shape, features)

    def with_rows(self, key: str, features: Features) -> ModelSensitivity:
        """The model `key`, whose rows may be of weights alone."""
        return self._with_cache(self.known(key, features), key)

    def sister(self, key: str, features: Features) -> ModelSensitivity:
        """A model without rows, of the family and shape of the model `key`: trained otherwise, so
        that it is as far from it as models are from each other, in its key biases above all."""
        sensitivity = self.with_rows(key, features)
        spread, read = self.payload["spread"], self.payload["models"][key]["read"]
        of_tables = features.ranges is None or features.ranges.name == read  # keys of the other
        between = [
            sum(spread[name] ** 2 for _, name in features.effects(component)) ** 0.5
            for component in COMPONENTS
        ]
        return replace(
            sensitivity,
            sd=np.hypot(sensitivity.sd, between),
            z=self.payload["z"]["unseen"],
            provenance="transferred",
            notes=(f"not in the tables by name; rows of {key}, of its shape, are used",),
            of_tables=of_tables,
        )

    def _with_cache(self, sensitivity: ModelSensitivity, key: str) -> ModelSensitivity:
        """Of a model whose rows are of weights alone, the cache is a stranger's."""
        if self.payload["models"][key]["cache_rows"]:
            return sensitivity
        weight = np.array([name == "weight" for name in COMPONENTS])
        stranger = self.unseen(sensitivity.features)
        return replace(
            sensitivity,
            mean=np.where(weight, sensitivity.mean, stranger.mean),
            sd=np.where(weight, sensitivity.sd, stranger.sd),
            other_size=np.where(weight, 0.0, stranger.other_size),
            notes=stranger.notes,
            of_weights=True,
            of_tables=stranger.of_tables,
        )

    def _ranges(self, spec: ModelSpec, key: str | None) -> KeyRanges | None:
        """The model's own table of key noise, where no rows of `key` say more: key outliers fitted
        to rows without one are in other units."""
        if key is None:
            return ranges_of(spec)
        model = self.payload["models"][key]
        if key == self.payload.get("own"):
            kept = self.payload.get("key_ranges")
            read = KeyRanges.read(kept) if kept else None
            return read or (bundled_ranges(model["read"]) if model["read"] else None)
        if model["cache_rows"] and not model["read"]:
            return None
        return ranges_of(spec) or (bundled_ranges(model["read"]) if model["read"] else None)

    def _attention(self, key: str | None) -> AttentionNoise | None:
        """What the model's own noise was fitted with."""
        kept = (self.payload.get("own_noise") or {}).get("attention")
        if kept is None or key is None or key != self.payload.get("own"):
            return None
        return AttentionNoise.of(kept, self.payload["models"][key]["shape"][1])

    def key_of(self, spec: ModelSpec) -> str | None:
        """The model of the fit that this is, if it has rows of its own."""
        return self._identify(spec)[0]

    def outlier_layers(self, spec: ModelSpec) -> tuple[int, ...]:
        """Layers known to carry this model's key outliers; empty where nothing is known."""
        key, same_shape = self._identify(spec)
        return self._outliers(key or same_shape).layers

    def _outliers(self, key: str | None) -> OutlierLayers:
        probed = self.payload.get("probed")
        if probed is not None:  # a calibration is of one model
            return OutlierLayers(keys=tuple(probed["keys"]), values=tuple(probed["values"]))
        if key is None:
            return OutlierLayers()
        model = self.payload["models"][key]
        return OutlierLayers(tuple(model["outlier_layers"]), model["outlier_share"])

    def _identify(self, spec: ModelSpec) -> tuple[str | None, str | None]:
        """(model with rows under this name and shape, else one of the same shape and family).

        A calibration was looked up for the model it is about, so there the model is `own`.
        """
        own = self.payload.get("own")
        if own is not None and tuple(self.payload["models"][own]["shape"]) == shape_of(spec):
            return own, None
        parts = [p.removeprefix("meta-").replace("_", "-") for p in spec.name.lower().split("/")]
        alike = self.alike(self._family(spec), shape_of(spec))
        for key in alike:
            names = tuple(self.payload["models"][key]["names"])
            if any(part.startswith(names) for part in parts):
                return key, None
        return None, self.most_sensitive(alike)

    def alike(self, family: str | None, shape: tuple[int, int, int]) -> list[str]:
        """Models with rows, of this family and shape."""
        models = self.payload["models"]
        found = [
            k for k, m in models.items() if m["family"] == family and tuple(m["shape"]) == shape
        ]
        # rows of weights alone say nothing of a cache that rows of a sister speak of
        return [key for key in found if models[key]["cache_rows"]] or found

    def most_sensitive(self, alike: Sequence[str]) -> str | None:
        """Among equals, one whose keys were read, then the one most sensitive to noise on them
        (in other units where they were read): nobody is promised too much."""
        models = self.payload["models"]
        return max(
            alike, key=lambda k: (bool(models[k]["read"]), models[k]["mean"][1]), default=None
        )

    def _family(self, spec: ModelSpec) -> str | None:
        return family_of(spec, self.payload["families"])
