"""The regression's parameters: names, prior means and prior standard deviations.

One vector theta. Format coefficients are positive (exp theta). Scales are logarithms of noise:

    scale of a component = population + covariates + family effect + model effect

with the effects shrunk to zero by their priors: a model with many rows moves away from its
family, one with few stays near it, an unseen one is its family's mean with all of the spread.
The priors are what is believed before any row: they are stated here, not tuned per model.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array

from ...planner.accuracy.formula import COEFFICIENTS, Floats
from ...planner.accuracy.key_noise.key_ranges import bundled_ranges
from ...planner.accuracy.model_features import Features
from ...planner.accuracy.model_sensitivity import COMPONENTS
from ...planner.accuracy.retention import OutlierLayers
from ...planner.accuracy.task_kinds import task_group

REFERENCE_KIND = "reasoning"

FORMAT_PRIORS: dict[str, tuple[float, float]] = {
    # coefficient: (prior median, prior sd of its logarithm)
    "gamma": (1.2, 0.15),  # losses grow in proportion to the noise (1) or faster
    "rotation_plain": (0.15, 0.7),
    "rotation_key": (1.6, 0.4),  # energy of one channel over 64: span(64)^2 / 128 = 0.17
    "rotation_value": (0.1, 1.0),
    "smoothing": (1.5, 1.0),  # no row has it with a baseline
    "channel_plain": (0.3, 0.7),
    "channel_outlier": (4.2, 0.15),  # it spoils itself, not its group: log 64
    "tile": (0.15, 0.7),  # nor this
    "tensor": (3.0, 0.3),  # nor this
    "residual": (1.0, 0.5),  # noise outside of the window, by the attention that goes there
    "context": (0.05, 0.7),
    "context_retrieval": (0.15, 0.7),
    "decline": (0.3, 0.7),
    "weight_8bit": (2.5, 0.5),
}
POPULATION_PRIORS: dict[str, tuple[float, float]] = {
    # Log noise that a format of unit noise power adds. Collapse is at log noise 0.
    "plain": (1.0, 2.0),
    "outlier": (1.0, 2.0),
    "read": (1.6, 0.7),  # as plain keys
    "value": (-0.5, 2.0),
    "weight": (-3.9, 1.5),  # 4-bit weights of an 8B model lose 2 %
}
COVARIATE_PRIORS: dict[str, tuple[float, float]] = {
    "size_cache": (-0.1, 0.2),  # per doubling of the parameters, all cache components
    "size_weight": (-0.3, 0.2),  # per doubling of the parameters, weights
    "size_biased": (-0.3, 0.3),  # the same, key outliers of models with a bias on their keys
    "bias_outlier": (0.0, 0.5),  # models with a bias on their keys: some are like others
    "norm_outlier": (0.0, 0.7),  # models that normalize their keys
}
KIND_PRIORS: dict[str, tuple[float, float]] = {
    "long_reasoning": (1.0, 0.7),
    "retrieval": (-0.5, 0.7),
    "reading": (-1.0, 0.7),
    "short_reasoning": (-0.5, 0.7),
    "likelihood": (-1.0, 0.7),
    "perplexity": (0.0, 0.7),
}
"""Log noise of a kind of task against reasoning."""
KIND_STEEPNESS_SD = 0.3
KIND_WEIGHT_SD = 0.5
"""Spreads between kinds of log gamma, and of the log noise of weights."""
TASK_SD = 0.3
"""Spread of log noise between the tasks of one kind."""
FIRST_PRIORS: dict[str, tuple[float, float]] = {
    # kind: (prior median share, prior sd of its logit)
    "reasoning": (0.02, 1.0),
    "long_reasoning": (0.005, 1.0),
    "retrieval": (0.1, 1.0),
    "reading": (0.35, 1.0),
    "short_reasoning": (0.5, 1.0),
    "likelihood": (0.3, 1.0),
}
"""Share of a score that an answer's first token decides, which after a prompt that was attended in
16 bits knows no noise."""
FLOAT_BIAS_PRIOR = (1.0, 1.0)
"""Log noise of float keys with biases against integers' worth as many bits."""
METHOD_PRIORS = {"RTN": (0.3, 0.4)}
"""Log noise of 4-bit weights by other methods than AWQ and GPTQ: it is taken out of their rows."""
FAMILY_SD = {"cache": 0.4, "outlier": 0.8, "weight": 0.4}
MODEL_SD = {"cache": 0.25, "outlier": 0.5, "weight": 0.3}
MEASURED_WIDER = 2.0
"""By which spreads are wider for a model with measured rows: they were run alike, so that what they
say is the model and not the table it was printed in."""
READ_SD = 0.6
"""Spread of key outliers between models whose checkpoints were read, around what they say."""
BIASED_OUTLIER_SD = {"biased_outlier": 1.2, "family_biased_outlier": 2.0}
"""Key biases differ by orders of magnitude between families that have them, and between the models
of one by less: Qwen1.5-7B keeps 98 % of GSM8K with per-token int4 keys, Qwen2.5-7B keeps 1 %. It
holds where nobody looked."""
SPREADS = {
    **MODEL_SD,
    **{f"family_{name}": value for name, value in FAMILY_SD.items()},
    **BIASED_OUTLIER_SD,
    "read": READ_SD,
}
"""All spreads by the names that Features.effects gives them."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that rows speak of: what its config says, and how it is recognized."""

    key: str
    features: Features
    names: tuple[str, ...]
    """Beginnings of the hub names that mean this model, lower case, without the owner."""
    shape: tuple[int, int, int]
    """(hidden width, layers, KV heads)."""

    @classmethod
    def read(cls, line: Mapping[str, str]) -> "KnownModel":
        """A line of models.csv."""
        features = Features(
            family=line["family"],
            parameters_b=float(line["parameters_b"]),
            qkv_bias=line["qkv_bias"] == "1",
            qk_norm=line["qk_norm"] == "1",
            head_dim=int(line["head_dim"]),
            layers=int(line["layers"]),
            attention_fraction=float(line["attention_fraction"]),
            outliers=OutlierLayers(
                tuple(int(x) for x in line["outlier_layers"].split("|") if x),
                float(line["outlier_share"] or 0),
            ),
            ranges=bundled_ranges(line["ranges"]) if line["ranges"] else None,
        )
        shape = int(line["hidden"]), int(line["layers"]), int(line["kv_heads"])
        return cls(line["key"], features, tuple(line["names"].split("|")), shape)


UNREAD_WEIGHT = 0.5
"""Trust in a read model's rows as those of a model that nobody read."""


def as_unread(model: KnownModel) -> KnownModel:
    """A model as if nobody had read its keys, under a key of its own."""
    features = replace(model.features, ranges=None)
    return replace(model, key=f"{model.key} unread", features=features)


class ParameterLayout:
    """Where each parameter sits in theta, with its prior."""

    def __init__(
        self,
        models: Sequence[KnownModel],
        tasks: Sequence[str] = (),
        measured: Collection[str] = (),
        unread: Sequence[KnownModel] = (),
    ) -> None:
        """`tasks` are the tasks of the rows, as `task_of` names them; `measured` are models with
        rows of a calibration, which may move them further from their kin; `unread` are models once
        more, as if nobody had read their keys."""
        self.models = tuple(models)
        self.families = tuple(dict.fromkeys(str(m.features.family) for m in models))
        self.names: list[str] = []
        means: list[float] = []
        sds: list[float] = []

        def add(name: str, mean: float, sd: float) -> None:
            self.names.append(name)
            means.append(mean)
            sds.append(sd)

        for name in COEFFICIENTS:
            median, sd = FORMAT_PRIORS[name]
            add(name, float(np.log(median)), sd)
        for group, priors in (
            ("scale", POPULATION_PRIORS),
            ("covariate", COVARIATE_PRIORS),
            ("kind", KIND_PRIORS),
        ):
            for name, (mean, sd) in priors.items():
                add(f"{group}:{name}", mean, sd)
        for kind in KIND_PRIORS:
            add(f"steepness:{kind}", 0.0, KIND_STEEPNESS_SD)
            add(f"kind_weight:{kind}", 0.0, KIND_WEIGHT_SD)
        for kind, (share, sd) in FIRST_PRIORS.items():
            add(f"first:{kind}", float(np.log(share / (1 - share))), sd)
        add("float_bias", *FLOAT_BIAS_PRIOR)
        for name, (mean, sd) in METHOD_PRIORS.items():
            add(f"method:{name}", mean, sd)
        for task in dict.fromkeys(tasks):
            add(f"task:{task}", 0.0, TASK_SD)
        biased = {m.features.family for m in models if m.features.qkv_bias}
        for effect in FAMILY_SD:
            for family in self.families:
                spread = "biased_outlier" if effect == "outlier" and family in biased else effect
                add(f"family:{effect}:{family}", 0.0, SPREADS[f"family_{spread}"])
        for model in (*self.models, *unread):
            spreads = dict(
                pair for component in COMPONENTS for pair in model.features.effects(component)
            )
            for effect, spread in spreads.items():
                wider = MEASURED_WIDER if model.key in measured else 1.0
                add(f"model:{effect}:{model.key}", 0.0, SPREADS[spread] * wider)
        self.prior_mean: Floats = np.array(means)
        self.prior_sd: Floats = np.array(sds)
        self.index = {name: i for i, name in enumerate(self.names)}

    def coefficients(self, theta: Floats) -> dict[str, float]:
        """The positive format coefficients."""
        return {name: float(np.exp(theta[self.index[name]])) for name in COEFFICIENTS}

    def scale_row(self, model: KnownModel, component: str) -> Floats:
        """The linear combination of theta that is one component's log scale for `model`."""
        row: Floats = np.zeros(len(self.names))
        row[self.index[f"scale:{model.features.scale(component)}"]] = 1.0
        for name, value in model.features.covariates(component).items():
            row[self.index[f"covariate:{name}"]] = value
        for effect, between_models in model.features.effects(component):
            if between_models != "read":
                row[self.index[f"family:{effect}:{model.features.family}"]] = 1.0
            row[self.index[f"model:{effect}:{model.key}"]] = 1.0
        return row

    def row(self, *names: str) -> Floats:
        """The sum of parameters by name; those that the layout lacks are 0."""
        row: Floats = np.zeros(len(self.names))
        for name in names:
            if name in self.index:
                row[self.index[name]] = 1.0
        return row

    def kind_row(self, kind: str) -> Floats:
        """Log noise of a kind of task."""
        return self.row(f"kind:{kind}")


class ParameterSums:
    """Matrices [N, parameters] of `ParameterLayout` rows, which name five or so of four hundred
    parameters each: a dense product would read the zeros in every step of a fit."""

    def __init__(self, matrices: Sequence[Floats]) -> None:
        self._count, (self._rows, self._parameters) = len(matrices), matrices[0].shape
        found = coo_array(np.vstack(matrices))
        self._sums = found.tocsr()
        self._row, self._value = found.coords[0], found.data
        self._place = self._row % self._rows * self._parameters + found.coords[1]

    def of(self, theta: Floats) -> Floats:
        """Each matrix times `theta`: [matrices, N]."""
        sums: Floats = (self._sums @ theta).reshape(self._count, self._rows)
        return sums

    def slopes(self, weights: Sequence[Floats]) -> Floats:
        """The sum of the matrices, each with its rows times its weights [N]: [N, parameters]."""
        each = self._value * np.concatenate(weights)[self._row]
        sums = np.bincount(self._place, each, self._rows * self._parameters)
        return sums.astype(np.float64, copy=False).reshape(self._rows, self._parameters)


def task_of(kind: str, task: str) -> str:
    """A task as the layout names it: apart for each kind."""
    return f"{kind}:{task_group(task)}"
