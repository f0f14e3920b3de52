"""Models whose measured configurations are there, for calibrations to be replayed on (replay.py).

Three recall models and four pretrained ones. The third recall model has other depth, head width
and seed than the two that ship. It was trained for its grid alone, its weights are not kept, and
the design and the fit were made before there was a row of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...planner.accuracy.key_noise.key_ranges import bundled_ranges
from ...planner.accuracy.model_sensitivity import ModelSensitivity
from ...planner.accuracy.predict import published
from ...planner.formats.configuration import Configuration
from ...planner.formats.kv_format import KVFormat
from ...planner.load_model import load_config, load_model
from ...planner.models.read_config import read_model
from ...planner.models.spec import Attention, ModelSpec
from ..design.next_run import Measurement
from ..fit.accuracy_rows import AccuracyRow
from ..fit.measured_models import SHIPPED, STRANGERS, measured_runs
from ..grid.held_out import FILE
from ..grid.reading import read_runs, to_rows

KEY = "replayed"
THIRD = "recall-third"
THIRD_FILE = FILE.with_name("recall_third.jsonl")
THIRD_SHAPE = {"num_hidden_layers": 6, "num_attention_heads": 4, "head_dim": 128}
RECALL_MODELS = ("recall", "recall-outliers", THIRD)
TOKENS = 8192
"""In the caches that are compared."""


@dataclass(frozen=True)
class Measured:
    """All measured points of one model: rows by configuration and context."""

    spec: ModelSpec
    rows: Mapping[Configuration, Mapping[int, Sequence[AccuracyRow]]]

    @property
    def contexts(self) -> list[int]:
        return sorted({context for by in self.rows.values() for context in by})

    def kept(self, config: Configuration, context: int) -> Measurement | None:
        """Mean retention over the kinds of one point; None where it was not measured."""
        rows = self.rows[config].get(context)
        if not rows:
            return None
        kept = float(np.mean([min(row.retention, 1.0) for row in rows]))
        return Measurement(kept, float(np.sqrt(sum(r.sd**2 for r in rows)) / len(rows)))

    def share(self, config: Configuration) -> float:
        """Bytes of the cache for a long context, as a share of the unquantized one's, weights left
        out."""
        whole = Configuration()
        return _cache_bytes(self.spec, config) / _cache_bytes(self.spec, whole)


def recall_grid(name: str) -> Measured:
    """The shipped grid of one of RECALL_MODELS."""
    third = name == THIRD
    rows: dict[Configuration, dict[int, list[AccuracyRow]]] = {}
    for run in read_runs(THIRD_FILE if third else FILE):
        if third or run.model == name:
            here = rows.setdefault(run.config, {}).setdefault(run.context, [])
            here += [replace(row, model=KEY) for row in to_rows([run])]
    return Measured(third_model() if third else load_model(name, offline=True), rows)


def third_model() -> ModelSpec:
    """The third recall model: what differs from the first's config."""
    config = {**load_config("recall", offline=True).config, **THIRD_SHAPE}
    return read_model(config, THIRD)


def pretrained(hub_id: str) -> Measured:
    """The text's probability of one of PRETRAINED, under each format of cache and weights, whatever
    the chunk it was read in."""
    rows: dict[Configuration, dict[int, list[AccuracyRow]]] = {}
    for config, row in measured_runs(models=SHIPPED):
        if row.model == SHIPPED[hub_id] and row.kind == "perplexity":
            plain = config.with_chunk(None)
            rows.setdefault(plain, {}).setdefault(row.context, [replace(row, model=KEY)])
    return Measured(load_model(hub_id, offline=True), rows)


def sensitivity_of(spec: ModelSpec) -> ModelSensitivity:
    """What the shared fit expects of a model; of one that it does not see, what it expects of a
    stranger whose keys were read, though a model of its shape has rows without them."""
    models = published().models
    found = models.of(spec)
    if spec.name not in STRANGERS:
        return found
    return models.unseen(replace(found.features, ranges=bundled_ranges(spec.name)))


def _cache_bytes(spec: ModelSpec, config: Configuration) -> int:
    total = 0
    for number, layer in enumerate(spec.layers):
        for mixer in layer.mixers:
            if isinstance(mixer, Attention):
                heads, dims = mixer.kv_heads, (mixer.head_dim, mixer.value_dim)
                total += KVFormat.of(config, number).nbytes(1, heads, *dims, TOKENS)
    return total
