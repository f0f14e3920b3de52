"""Models whose measured configurations are there, for calibrations to be replayed on (replay.py).

Seven recall models, and four pretrained ones by a text and by a calibration's own measure. The
third and the fourth recall model have other depth, head width and seed than the two that ship. They
were trained for their grids alone, and their weights are not kept, so that neither their keys nor
their attention are read. The design was made before there was a row of the fourth, or of what it is
with outliers in its keys.

The fifth and the sixth are the first with other outliers in its keys, measured after what formats
make of the attention had come into the fit: one pair of each head sixteen times as large in five
layers, an offset of 48 in the three others; and three pairs four times as large in all layers, an
offset of 16 in two. Their rows are of 512 tokens and 64 items a task, on a CPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...planner.accuracy.key_noise.attention_noise import AttentionNoise
from ...planner.accuracy.model_sensitivity import ModelSensitivity
from ...planner.formats.configuration import Configuration
from ...planner.formats.kv_format import KVFormat
from ...planner.load_model import load_config, load_model
from ...planner.models.read_config import read_model
from ...planner.models.spec import Attention, ModelSpec
from ..design.next_run import Measurement
from ..fit.accuracy_rows import AccuracyRow
from ..fit.measured_models import SHIPPED, measured_runs
from ..fit.profile import starting_fit
from ..grid.held_out import FILE
from ..grid.reading import read_runs, to_rows
from ..grid.spread import read_spread
from .attention_tables import attention_of

KEY = "replayed"
THIRD, FOURTH, FOURTH_OUTLIERS = "recall-third", "recall-fourth", "recall-fourth-outliers"
FIFTH_OUTLIERS, SIXTH_OUTLIERS = "recall-fifth-outliers", "recall-sixth-outliers"
SHAPES = {
    THIRD: {"num_hidden_layers": 6, "num_attention_heads": 4, "head_dim": 128},
    FOURTH: {"num_hidden_layers": 5, "num_attention_heads": 4, "head_dim": 256},
}
"""Of models whose weights are not kept, what differs from the first's config."""
SHAPES[FOURTH_OUTLIERS] = SHAPES[FOURTH]
SHAPES[FIFTH_OUTLIERS] = SHAPES[SIXTH_OUTLIERS] = {}
FILES = {
    THIRD: FILE.with_name("recall_third.jsonl"),
    FOURTH: FILE.with_name("recall_fourth.jsonl"),
    FOURTH_OUTLIERS: FILE.with_name("recall_fourth.jsonl"),
    FIFTH_OUTLIERS: FILE.with_name("recall_fifth.jsonl"),
    SIXTH_OUTLIERS: FILE.with_name("recall_sixth.jsonl"),
}
RECALL_MODELS = (
    *("recall", "recall-outliers", THIRD, FOURTH, FOURTH_OUTLIERS),
    *(FIFTH_OUTLIERS, SIXTH_OUTLIERS),
)
SPREADS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": FILE.with_name("spread_smollm2.jsonl"),
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": FILE.with_name("spread_qwen05.jsonl"),
    "google/gemma-3-270m": FILE.with_name("spread_gemma270.jsonl"),
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": FILE.with_name("spread_qwen15.jsonl"),
}
"""Of pretrained models, what a calibration itself would have measured (grid/spread.py)."""
TOKENS = 8192
"""In the caches that are compared."""


@dataclass(frozen=True)
class Measured:
    """All measured points of one model: rows by configuration and context."""

    spec: ModelSpec
    rows: Mapping[Configuration, Mapping[int, Sequence[AccuracyRow]]]
    attention: AttentionNoise | None = None

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
    rows: dict[Configuration, dict[int, list[AccuracyRow]]] = {}
    for run in read_runs(FILES.get(name, FILE)):
        if run.model == (name.removeprefix("recall-") if name in FILES else name):
            here = rows.setdefault(run.config, {}).setdefault(run.context, [])
            here += [replace(row, model=KEY) for row in to_rows([run])]
    return Measured(recall_spec(name), rows, attention_of(name))


def recall_spec(name: str) -> ModelSpec:
    """The description of one of RECALL_MODELS."""
    if name not in SHAPES:
        return load_model(name, offline=True)
    config = {**load_config("recall", offline=True).config, **SHAPES[name]}
    return read_model(config, name)


def pretrained(hub_id: str) -> Measured:
    """The text's probability of one of PRETRAINED, under each format of cache and weights, whatever
    the chunk it was read in."""
    rows: dict[Configuration, dict[int, list[AccuracyRow]]] = {}
    for config, row in measured_runs(models=SHIPPED):
        if row.model == SHIPPED[hub_id] and row.kind == "perplexity":
            plain = config.with_chunk(None)
            rows.setdefault(plain, {}).setdefault(row.context, [replace(row, model=KEY)])
    return Measured(load_model(hub_id, offline=True), rows)


def calibrated(hub_id: str) -> Measured:
    """A spread of the candidates of one of SPREADS, as `calibrate` measures text and tasks."""
    found = read_spread(SPREADS[hub_id], KEY)
    rows: dict[Configuration, dict[int, list[AccuracyRow]]] = {}
    for config, row in found.rows:
        rows.setdefault(config, {}).setdefault(row.context, []).append(row)
    return Measured(load_model(hub_id, offline=True), rows, found.attention)


def sensitivity_of(measured: Measured) -> ModelSensitivity:
    """What the shared fit expects of a model that is calibrated, with what its attention says."""
    found = starting_fit(measured.spec).models.of(measured.spec)
    return replace(found, features=replace(found.features, attention=measured.attention))


def _cache_bytes(spec: ModelSpec, config: Configuration) -> int:
    total = 0
    for number, layer in enumerate(spec.layers):
        for mixer in layer.mixers:
            if isinstance(mixer, Attention):
                heads, dims = mixer.kv_heads, (mixer.head_dim, mixer.value_dim)
                total += KVFormat.of(config, number).nbytes(1, heads, *dims, TOKENS)
    return total
