"""Predicted accuracy of configurations: retention, an interval, and what they rest on.

`retention` is score / score of the unquantized model on the same items. Coefficients, their
range and held-out errors come from the JSON that `calibration.fit` writes; docs/accuracy.md
derives the formula and says how good it is.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ... import profiles
from ..formats.configuration import Configuration
from ..light_dataclass import dataclass
from ..models.spec import ModelSpec
from . import calibrations
from .formula import BLOCK, GRANULARITIES, OUTLIER, TENSOR, Floats, Formats
from .measured_configs import MeasuredRetention
from .model_sensitivity import Features, features_of
from .named_noise import is_published, weight_equivalents, weight_notes, with_names
from .predictor import Predictor, above_floor
from .retention import OutlierLayers, protected_shares
from .task_kinds import GENERATED_KINDS, OVERALL_KINDS, REPORTED_KINDS, Scored, headline_kinds

RELEASED_QUANTIZED = ("mxfp4",)


@dataclass(frozen=True, slots=True)
class TaskAccuracy:
    """Retention on one kind of task."""

    retention: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Predicted retention, the interval that holds it with probability `level`, and on what
    it rests. `notes` say where the prediction goes beyond what was measured.

    `retention`, `low` and `high` are those of the weakest generated kind of task, or of the kind
    that was asked for; `task` names it. `tasks` has every kind.
    """

    retention: float
    low: float
    high: float
    level: float
    provenance: str
    tasks: Mapping[str, TaskAccuracy]
    task: str
    notes: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    """Where the model, or such a configuration, was seen to fail at a context no longer."""


@dataclass(frozen=True, slots=True)
class AccuracyGrid:
    """Retention of the weakest kind, and its interval, for W weight formats x F cache formats:
    [W, F]."""

    retention: Floats
    low: Floats
    high: Floats
    level: float
    provenance: str


@lru_cache(maxsize=1)
def published() -> Predictor:
    """The predictor fitted on published rows, as shipped."""
    return Predictor(json.loads(profiles.read("published/accuracy.json")))


def predictor_for(spec: ModelSpec) -> Predictor:
    """The model's own calibration on this machine, else what is shipped."""
    return calibrations.find(spec) or published()


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
    scored: Scored | None = None,
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
    scored: Scored | None = None,
) -> list[Accuracy]:
    """`predict` for many configurations of one model at once."""
    chosen = calibrations.note(spec) if predictor is None else ()
    predictor = predictor or predictor_for(spec)
    headline = headline_kinds(predictor.measured.kinds, task)
    effects = predictor.models.of(spec)
    formats = formats_of(spec, configs)
    protections = [c.protection for c in configs]
    layers = [p.layers if p else () for p in protections]
    kept_bits = np.array([float(p.k_bits) if p else 16.0 for p in protections])
    formats, shares = _read(effects.features, formats, layers, np.arange(len(configs)), kept_bits)
    protected = formats.with_bits(
        np.array([p.k_bits if p else 16 for p in protections]),
        np.array([p.v_bits if p else 16 for p in protections]),
    )
    weight_bits = _weight_bits(
        spec, [c.weight_bits for c in configs], [c.weight_format for c in configs]
    )
    ends = effects.z, 0.0, -effects.z
    parts = (
        [
            predictor.retention(
                effects,
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
                effects, formats, protected, shares, context, weight_bits, REPORTED_KINDS, ends
            )
        ]
    )
    kept = np.concatenate([cache * weights for cache, weights in parts], axis=1)
    floors = np.array([predictor.floor(effects, kind, scored) for kind in REPORTED_KINDS])
    table = above_floor(kept, floors[:, None])  # [low, predicted, high; kind; configuration]
    predictions = [
        _headed(
            headline,
            {
                kind: TaskAccuracy(*(float(table[end, k, i]) for end in (1, 0, 2)))
                for k, kind in enumerate(REPORTED_KINDS)
            },
            level=predictor.level,
            provenance="published"
            if is_published(spec, config.weight_format) and not config.quantizes_kv
            else effects.provenance,
            notes=(
                *effects.notes,
                *weight_notes(spec, config.weight_format),
                *_notes(predictor, config, context, headline),
            )
            if config.weight_bits < 16 or config.quantizes_kv
            else (),
        )
        for i, config in enumerate(configs)
    ]
    known = [
        _with_measured(predicted, predictor.measured.of(config, context), headline)
        for predicted, config in zip(predictions, configs, strict=True)
    ]
    return [
        replace(one, notes=(*one.notes, *chosen), breaks=_breaks(predictor, config, context))
        for one, config in zip(known, configs, strict=True)
    ]


def _headed(
    headline: Sequence[str],
    tasks: Mapping[str, TaskAccuracy],
    *,
    level: float,
    provenance: str,
    notes: tuple[str, ...],
) -> Accuracy:
    """Each end of the weakest kind's retention: what every kind of `headline` keeps at least."""
    return Accuracy(
        retention=min(tasks[kind].retention for kind in headline),
        low=min(tasks[kind].low for kind in headline),
        high=min(tasks[kind].high for kind in headline),
        level=level,
        provenance=provenance,
        tasks=tasks,
        task=min(headline, key=lambda kind: (tasks[kind].retention, tasks[kind].low)),
        notes=notes,
    )


def _with_measured(
    predicted: Accuracy, measured: Mapping[str, MeasuredRetention], headline: Sequence[str]
) -> Accuracy:
    """The prediction with the kinds that were measured under this configuration put in."""
    if not measured:
        return predicted
    tasks = dict(predicted.tasks)
    for kind, kept in measured.items():
        if kind in tasks:
            tasks[kind] = TaskAccuracy(kept.retention, *kept.interval(predicted.level))
    whole = all(kind in measured for kind in headline)
    return _headed(
        headline,
        tasks,
        level=predicted.level,
        provenance="measured" if whole else predicted.provenance,
        notes=() if whole else predicted.notes,
    )


def predict_grid(
    spec: ModelSpec,
    weight_bits: Sequence[int],
    formats: Formats,
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
    effects = predictor.models.of(spec)
    index = np.broadcast_to(np.asarray(protection, dtype=np.int64), formats.k_bits.shape)
    formats, shares = _read(
        effects.features, formats, protections, index, np.full(index.shape, float(protected_bits))
    )
    protected = formats.with_bits(protected_bits, protected_bits)
    bits = _weight_bits(spec, weight_bits, weight_formats)
    kinds = headline_kinds(predictor.measured.kinds, task)
    ends = effects.z, 0.0, -effects.z
    cache, weights = predictor.retention(
        effects, formats, protected, shares, context, bits, kinds, ends
    )
    kept = weights[:, :, :, None] * cache[:, :, None, :]
    floors = np.array([predictor.floor(effects, kind) for kind in kinds])
    if floors.any():
        kept = above_floor(kept, floors[:, None, None])
    low, middle, high = kept.min(axis=1)
    return AccuracyGrid(middle, low, high, predictor.level, effects.provenance)


def format_arrays(
    spec: ModelSpec,
    *,
    k_bits: ArrayLike,
    v_bits: ArrayLike,
    granularity: Sequence[str],
    group_size: ArrayLike,
    block_tokens: ArrayLike,
    smoothing: ArrayLike,
    rotation: ArrayLike,
    residual: ArrayLike,
    kv_names: Sequence[tuple[str, str]] = (),
) -> Formats:
    """Cache formats of a space as arrays of one length F; 0 stands for a field's None.

    `granularity` holds values of Granularity. Groups as wide as the head are the head. `kv_names`
    are names of keys' and values' formats, "" for sides that have bits.
    """
    head = float(features_of(spec, None).head_dim)
    names = {str(g): i for i, g in enumerate(GRANULARITIES)}
    group = np.asarray(group_size, dtype=float)
    turned = np.asarray(rotation, dtype=float)
    formats = Formats(
        k_bits=np.asarray(k_bits, dtype=float),
        v_bits=np.asarray(v_bits, dtype=float),
        granularity=np.array([names[str(g)] for g in granularity]),
        group=np.where((group > 0) & (group < head), group, head),
        block=np.maximum(np.asarray(block_tokens, dtype=float), 1.0),
        smoothing=np.asarray(smoothing, dtype=float),
        rotate_k=turned,
        rotate_v=turned,
        residual=np.asarray(residual, dtype=float),
    )
    return with_names(formats, int(head), kv_names)


def formats_of(spec: ModelSpec, configs: Sequence[Configuration]) -> Formats:
    """The cache formats of configurations."""
    return format_arrays(
        spec,
        k_bits=[c.k_bits for c in configs],
        v_bits=[c.v_bits for c in configs],
        granularity=[c.granularity for c in configs],
        group_size=[c.group_size or 0 for c in configs],
        block_tokens=[c.block_tokens or 0 for c in configs],
        smoothing=[c.smoothing for c in configs],
        rotation=[c.rotation for c in configs],
        residual=[c.residual for c in configs],
        kv_names=[(c.k_format, c.v_format) for c in configs],
    )


def outlier_layers(spec: ModelSpec) -> tuple[int, ...]:
    """Layers known to carry the model's key outliers: worth protecting; empty if none is known."""
    return published().models.outlier_layers(spec)


def proposed_protections(spec: ModelSpec) -> tuple[tuple[int, ...], ...]:
    """Sets of layers that a calibration of this model found worth protecting."""
    probed = predictor_for(spec).payload.get("probed") or {}
    return tuple(tuple(layers) for layers in probed.get("protect", ()))


def _weight_bits(spec: ModelSpec, bits: Sequence[int], names: Sequence[str] = ()) -> Floats:
    """Weight bits as far as they cost accuracy: a model released in 4 bits alone (gpt-oss) has no
    unquantized self to lose against. Formats with names are worth bits of their own."""
    released = spec.quantization is not None and spec.quantization.method in RELEASED_QUANTIZED
    return weight_equivalents(spec, names or [""] * len(bits), bits, released)


def _read(
    features: Features,
    formats: Formats,
    protections: Sequence[Collection[int]],
    protection: NDArray[np.int64],
    protected_bits: Floats,
) -> tuple[Formats, Floats]:
    """Formats with the key noise that was read from the checkpoint, where it was, and the share of
    each component in protected layers [3, F]; what was read counts its protected layers itself.

    Format f keeps the layers `protections[protection[f]]` at `protected_bits[f]`.
    """
    shares = _shares(features.outliers, features.layers, protections)[:, protection]
    if features.ranges is None:
        return formats, shares
    read = features.ranges.noise(formats, protections, protection, protected_bits)
    shares[OUTLIER] = 0.0
    return replace(formats, read=read), shares


def _shares(outliers: OutlierLayers, layers: int, protections: Sequence[Collection[int]]) -> Floats:
    """Share of each component (plain, outlier, value) that each protection keeps out: [3, P]."""
    shares = [protected_shares(outliers, layers, p) for p in protections]
    return np.array([[s.plain, s.outlier, s.value] for s in shares]).T


def _breaks(predictor: Predictor, config: Configuration, context: int) -> tuple[str, ...]:
    """Plain warnings of contexts at which the model, or the configuration, was seen to fail."""
    messages = []
    itself = predictor.payload.get("breaks")
    if itself is not None and context >= itself:
        messages.append(
            f"from {itself:,} tokens on this model, unquantized, scores less than half of its best "
            "(measured): expect no good answers there, whatever the configuration"
        )
    broken = predictor.measured.broken(config, context)
    if broken is not None:
        run, first = broken
        messages.append(
            f"{run} was measured to keep less than half of the score from {first:,} tokens on"
        )
    return tuple(messages)


def _notes(
    predictor: Predictor, config: Configuration, context: int, headline: Sequence[str]
) -> tuple[str, ...]:
    """Where the configuration or the context lies beyond the rows of the fit."""
    known: Mapping[str, Any] = predictor.payload["range"]
    notes = []
    if len(headline) > 1 and (missing := set(GENERATED_KINDS) - set(headline)):
        named = " and ".join(sorted(missing)).replace("_", " ")
        notes.append(
            f"{named} was not measured on this model: --task {min(missing).replace('_', '-')} "
            "plans by its prediction"
        )
    longest = predictor.measured.longest
    if longest is not None and context > longest:
        notes.append(f"beyond the longest context this model was measured at ({longest:,} tokens)")
    elif context > known["context"][1]:
        notes.append(f"beyond the longest context of the rows ({known['context'][1]:,} tokens)")
    for name, used, words in (
        ("smoothing", config.smoothing, "K-smoothing: its gain is a prior"),
        ("per-block", config.granularity is GRANULARITIES[BLOCK], "scales per block of tokens"),
        ("per-tensor", config.granularity is GRANULARITIES[TENSOR], "integer scales per tensor"),
        ("sinks", config.sinks > 0, "sinks: no gain is assumed"),
    ):
        if used and not known["rows"].get(name, 0):
            notes.append(f"no row has {words}")
    return tuple(notes)
