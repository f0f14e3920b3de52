"""Predicted accuracy of configurations: retention, an interval, and what they rest on.

`retention` is score / score of the unquantized model on the same items. Coefficients come from the
JSON that `calibration.fit` writes; docs/accuracy.md says how good it is.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ... import profiles
from ..formats.configuration import Configuration
from ..models.spec import ModelSpec
from . import calibrations, shipped_measurements
from .coded_noise import doubt, weights_worth
from .format_arrays import all_kept, formats_of, with_read_keys
from .formula import Floats, FormatArrays
from .interval import with_high
from .key_noise.at_hand import unread
from .measured_configs import headed, in_order, with_measured
from .model_sensitivity import NEW_CACHE, ModelSensitivity
from .named_noise import is_published, weight_equivalents, weight_notes
from .notes import breaks_of, notes_of, said_of_calibration
from .prediction import Accuracy, AccuracyGrid, TaskAccuracy
from .predictor import Predictor, above_floor
from .task_kinds import OVERALL_KINDS, REPORTED_KINDS, ScoredTask, headline_kinds

RELEASED_QUANTIZED = ("mxfp4",)
OF_THE_MODEL = ("calibrated", "published")
"""What a prediction rests on where the model has rows of its own. A published table of another
model says no more of a model without rows than its own predictor does."""


@lru_cache(maxsize=1)
def published() -> Predictor:
    """The predictor fitted on published rows, as shipped."""
    return Predictor(json.loads(profiles.read("published/accuracy.json")))


def predictor_for(spec: ModelSpec) -> Predictor:
    """The model's own calibration on this machine; else the one that ships, where this project
    measured the model; else the published rows'."""
    return calibrations.find(spec) or shipped_measurements.find(spec) or published()


def average(accuracy: Accuracy, kinds: Sequence[str] = OVERALL_KINDS) -> TaskAccuracy:
    """The mean over kinds. One noise drives them all, so the mean of their ends is its end."""
    tasks = [accuracy.tasks[kind] for kind in kinds]
    ends = ([getattr(task, end) for task in tasks] for end in ("retention", "low", "high"))
    return TaskAccuracy(*(sum(values) / len(tasks) for values in ends))


def predict(
    spec: ModelSpec,
    config: Configuration,
    context: int,
    predictor: Predictor | None = None,
    task: str | None = None,
    scored: ScoredTask | None = None,
) -> Accuracy:
    """Retention of `config` on `spec` with `context` tokens in the cache.

    `scored` names the very task and what it scores unquantized: every kind is then predicted for
    that task, if it is of the kind. An unquantized configuration is exactly 1, whatever the model.
    """
    return predict_many(spec, [config], context, predictor, task, scored)[0]


def predict_many(
    spec: ModelSpec,
    configs: Sequence[Configuration],
    context: int,
    predictor: Predictor | None = None,
    task: str | None = None,
    scored: ScoredTask | None = None,
) -> list[Accuracy]:
    """`predict` for many configurations of one model at once, or for none."""
    if not configs:
        return []
    chosen = said_of_calibration(spec) if predictor is None else ()
    predictor = predictor or predictor_for(spec)
    measured, headline = predictor.measured, headline_kinds(predictor.measured.kinds, task)
    ordered = [list(measured.ordered(config, context)) for config in configs]
    runs = list(dict.fromkeys(run for beside in ordered for run, _ in beside))
    alone = _alone(spec, [*configs, *runs], context, predictor, headline, scored)
    known = dict(zip(runs, alone[len(configs) :], strict=True))
    return [
        replace(
            in_order(one, [(known[run], less) for run, less in beside], measured.kinds, headline),
            notes=(*one.notes, *chosen),
            breaks=breaks_of(predictor, config, context),
        )
        for one, config, beside in zip(alone, configs, ordered, strict=False)
    ]


def _alone(
    spec: ModelSpec,
    configs: Sequence[Configuration],
    context: int,
    predictor: Predictor,
    headline: Sequence[str],
    scored: ScoredTask | None,
) -> list[Accuracy]:
    """Each by its own format, whatever is known of others."""
    sensitivity = predictor.models.of(spec)
    formats = formats_of(spec, configs := [all_kept(config, context) for config in configs])
    table = _table(spec, configs, formats, context, predictor, sensitivity, scored)
    doubts = np.array([doubt(config) for config in configs]) + sensitivity.doubt
    if doubts.any():
        ends = [
            _table(spec, configs, moved, context, predictor, sensitivity, scored)
            for moved in (formats.worth_more(-doubts), formats.worth_more(doubts))
        ]
        table = np.stack([ends[0][0], table[1], ends[1][2]])
    predictions = [
        headed(
            headline,
            {
                kind: TaskAccuracy(*(float(table[end, k, i]) for end in (1, 0, 2)))
                for k, kind in enumerate(REPORTED_KINDS)
            },
            level=predictor.level,
            provenance=_provenance(spec, config, sensitivity),
            notes=(
                *(n for n in sensitivity.notes if config.quantizes_kv or n != NEW_CACHE),
                *(unread(spec) if config.quantizes_kv else ()),
                *weight_notes(spec, config.weight_format),
                *notes_of(predictor, config, context, headline),
            )
            if config.weight_bits < 16 or config.quantizes_kv
            else (),
        )
        for i, config in enumerate(configs)
    ]
    return [
        with_measured(predicted, predictor.measured.of(config, context), headline)
        for predicted, config in zip(predictions, configs, strict=True)
    ]


def _provenance(spec: ModelSpec, config: Configuration, sensitivity: ModelSensitivity) -> str:
    """Of a cache in 16 bits, that of the weights alone: nothing of it is unknown."""
    if config.quantizes_kv:
        return "transferred" if sensitivity.of_weights else sensitivity.provenance
    if sensitivity.provenance in OF_THE_MODEL and is_published(spec, config.weight_format):
        return "published"
    return "transferred" if sensitivity.provenance == "unknown" else sensitivity.provenance


def _table(
    spec: ModelSpec,
    configs: Sequence[Configuration],
    formats: FormatArrays,
    context: int,
    predictor: Predictor,
    sensitivity: ModelSensitivity,
    scored: ScoredTask | None,
) -> Floats:
    """Retention [low, predicted, high; kind; configuration]."""
    protections = [c.protection for c in configs]
    layers = [p.layers if p else () for p in protections]
    kept_k, kept_v = (
        np.array([float(getattr(p, side)) if p else 16.0 for p in protections])
        for side in ("k_bits", "v_bits")
    )
    formats, shares = with_read_keys(
        sensitivity.features, formats, layers, np.arange(len(configs)), kept_k, kept_v
    )
    protected = formats.with_bits(
        np.array([p.k_bits if p else 16 for p in protections]),
        np.array([p.v_bits if p else 16 for p in protections]),
    )
    names, given = [c.weight_format for c in configs], [weights_worth(c) for c in configs]
    weight_bits = _weight_bits(predictor, spec, given, names)
    ends = sensitivity.z, 0.0, -sensitivity.z
    parts = (
        [
            predictor.retention(
                sensitivity,
                formats,
                protected,
                shares,
                context,
                weight_bits,
                (kind,),
                ends,
                predictor.task_offset(kind, scored),
            )
            for kind in REPORTED_KINDS
        ]
        if scored is not None
        else [
            predictor.retention(
                sensitivity, formats, protected, shares, context, weight_bits, REPORTED_KINDS, ends
            )
        ]
    )
    both = [predictor.together(sensitivity, *part, middle=1) for part in parts]
    kept = np.concatenate(both, axis=1)
    floors = np.array([predictor.floor(sensitivity, kind, scored) for kind in REPORTED_KINDS])
    known = sensitivity.features.ranges is None or (
        sensitivity.provenance in OF_THE_MODEL and not sensitivity.of_weights
    )
    return with_high(above_floor(kept, floors[:, None]), None if known else formats)


def predict_grid(
    spec: ModelSpec,
    weight_bits: Sequence[int],
    formats: FormatArrays,
    context: int,
    *,
    weight_formats: Sequence[str] = (),
    protections: Sequence[Collection[int]] = ((),),
    protection: ArrayLike = 0,
    protected_bits: int = 8,
    predictor: Predictor | None = None,
    task: str | None = None,
) -> AccuracyGrid:
    """Retention of the weakest kind, of every weight format with every cache format; equals
    `predict`.

    `formats` are F cache formats (`format_arrays`); format f keeps the layers
    `protections[protection[f]]` at `protected_bits`.
    """
    predictor = predictor or predictor_for(spec)
    sensitivity = predictor.models.of(spec)
    index = np.broadcast_to(np.asarray(protection, dtype=np.int64), formats.k_bits.shape)
    kept_bits = np.full(index.shape, float(protected_bits))
    bits = _weight_bits(predictor, spec, weight_bits, weight_formats)
    kinds = headline_kinds(predictor.measured.kinds, task)

    def retention(more: float, ends: Sequence[float]) -> tuple[Floats, Floats]:
        """Of the cache formats as if worth `more` bits more."""
        worth = formats.worth_more(np.full(index.shape, more)) if more else formats
        read, shares = with_read_keys(sensitivity.features, worth, protections, index, kept_bits)
        protected = read.with_bits(protected_bits, protected_bits)
        return predictor.retention(sensitivity, read, protected, shares, context, bits, kinds, ends)

    ends, bits_off = (sensitivity.z, 0.0, -sensitivity.z), sensitivity.doubt
    if bits_off:
        moves = zip((-bits_off, 0.0, bits_off), ends, strict=True)
        parts = [retention(more, (end,)) for more, end in moves]
        cache, weights = (np.concatenate(of) for of in zip(*parts, strict=True))
    else:
        cache, weights = retention(0.0, ends)
    kept = predictor.together(sensitivity, cache[:, :, None], weights[:, :, :, None], middle=1)
    floors = np.array([predictor.floor(sensitivity, kind) for kind in kinds])
    if floors.any():
        kept = above_floor(kept, floors[:, None, None])
    low, middle, high = kept.min(axis=1)
    return AccuracyGrid(middle, low, high, predictor.level, sensitivity.provenance)


def outlier_layers(spec: ModelSpec) -> tuple[int, ...]:
    """Layers known to carry the model's key outliers: worth protecting; empty if none is known."""
    return published().models.outlier_layers(spec)


def proposed_protections(spec: ModelSpec) -> tuple[tuple[int, ...], ...]:
    """Sets of layers worth protecting: as a calibration of this model found, else as its keys say
    where they were read."""
    predictor = predictor_for(spec)
    probed = predictor.payload.get("probed") or {}
    found = tuple(tuple(layers) for layers in probed.get("protect", ()))
    ranges = predictor.models.of(spec).features.ranges
    return found or (ranges.proposals() if ranges is not None else ())


def _weight_bits(
    predictor: Predictor, spec: ModelSpec, bits: Sequence[float], names: Sequence[str]
) -> Floats:
    """Weight bits as far as they cost accuracy: a model released in 4 bits alone (gpt-oss) has no
    unquantized self to lose against. Formats with names are worth bits of their own."""
    released = spec.quantization is not None and spec.quantization.method in RELEASED_QUANTIZED
    fall = predictor.coefficients(0.0)["weight_8bit"]
    return weight_equivalents(spec, names or [""] * len(bits), bits, fall, released=released)
