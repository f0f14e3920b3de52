"""Checks of a calibration's coefficients: every field in its range, and one evaluation.

accuracy.json is written by this program, but it is imported from other machines, edited and cut
short, and what it says is exponentiated. So it is checked wherever it is read (calibrations.py,
for `plan` and `estimate`; calibration/records/export.py, for `profiles import`) and once more
before it is written. Ranges are far wider than any fit's; what they exclude is damage. The last
check evaluates what a plan will: a combination that overflows is refused here, not met as NaN
there.
"""

from collections.abc import Mapping
from typing import Any

from ...errors import KVParetoError
from ...formats.configuration import Configuration
from ..calibrated_noise import SLOPES
from ..formula import COEFFICIENTS
from ..interactions import TABLES
from ..key_noise.attention_noise import AttentionNoise
from ..key_noise.key_ranges import KeyRanges, bundled
from ..model_sensitivity import COMPONENTS
from ..predictor import Predictor
from ..task_kinds import MOST_FLOOR
from .evaluation import check_evaluates
from .values import (
    LARGEST_LOG,
    MOST_KEPT,
    MOST_TOKENS,
    WIDEST,
    DamagedCalibration,
    OtherVersion,
    check_finite,
    check_text,
    count,
    entries,
    listed,
    number,
)

SCHEMA = 3
"""Of accuracy.json, whose coefficients a version evaluates."""
META_SCHEMA = 1
PROVENANCES = ("calibrated", "published")
SPREADS = ("cache", "outlier", "weight", "family_cache", "family_outlier", "family_weight", "read")


def check_payload(payload: Mapping[str, Any]) -> Predictor:
    """The predictor of a calibration's accuracy.json.

    Raises DamagedCalibration for anything that no fit of this version could have written.
    """
    check_finite(payload)
    try:
        _check_fields(payload)
        predictor = Predictor(payload)
        check_evaluates(predictor)
    except (KVParetoError, LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, DamagedCalibration):
            raise
        raise DamagedCalibration(f"a field is missing or of another kind: {error}") from None
    return predictor


def check_meta(meta: Mapping[str, Any]) -> None:
    """Raise DamagedCalibration where the facts of a profile are not what its readers print."""
    check_finite(meta)
    if meta.get("schema") != META_SCHEMA or isinstance(meta["schema"], bool):
        raise _unread(meta, f"schema of the facts is {meta.get('schema')!r:.40}")
    for name in ("model", "fingerprint"):
        check_text(meta.get(name), name)
    for name in ("rows", "configurations", "failed", "other_versions"):
        count(meta.get(name, 0), 0, MOST_TOKENS, name)
    for value in listed(meta, "contexts"):
        count(value, 0, MOST_TOKENS, "contexts")
    for value in listed(meta, "tasks"):
        check_text(value, "tasks")
    where, held_out = meta.get("environment", {}), meta.get("held_out", {})
    if not isinstance(where, Mapping) or not isinstance(held_out, Mapping):
        raise DamagedCalibration("environment or held_out is no object")
    for text in (*where.values(), meta.get("ended")):
        if text is not None:
            check_text(text, "environment")
    for name in ("mae", "coverage") if held_out else ():
        number(held_out.get(name), 0.0, MOST_KEPT, f"held_out.{name}")


def _unread(document: Mapping[str, Any], why: str) -> DamagedCalibration:
    """Of another version where a whole number says so, else damaged."""
    written = document.get("schema")
    kind = OtherVersion if isinstance(written, int) and written is not True else DamagedCalibration
    return kind(why)


def _check_fields(payload: Mapping[str, Any]) -> None:
    if payload.get("schema") != SCHEMA or isinstance(payload["schema"], bool):
        raise _unread(
            payload, f"schema is {payload.get('schema')!r:.40}, this version reads {SCHEMA}"
        )
    level = number(payload["level"], 0.0, 1.0, "level")
    if not 0.0 < level < 1.0:
        raise DamagedCalibration(f"level is {level:g}")
    for name in ("known", "unseen"):
        number(payload["z"][name], 0.0, WIDEST, f"z.{name}")
    if set(payload["coefficients"]) != set(COEFFICIENTS):
        raise DamagedCalibration("coefficients are not those of this version")
    for table in ("coefficients", "kinds"):
        for name, (mean, sd) in payload[table].items():
            number(mean, -LARGEST_LOG, LARGEST_LOG, f"{table}.{name}")
            number(sd, 0.0, WIDEST, f"{table}.{name}")
    for kind, shape in payload["kind_shapes"].items():
        number(shape["steepness"], -LARGEST_LOG, LARGEST_LOG, f"kind_shapes.{kind}")
        number(shape["weight"], -LARGEST_LOG, LARGEST_LOG, f"kind_shapes.{kind}")
        number(shape["floor"], 0.0, MOST_FLOOR, f"kind_shapes.{kind}.floor")
        number(shape.get("first", 0.0), 0.0, 1.0, f"kind_shapes.{kind}.first")
        number(shape["misfit"], 0.0, WIDEST, f"kind_shapes.{kind}.misfit")
        number(shape.get("weight_misfit", 0.0), 0.0, 1.0, f"kind_shapes.{kind}.weight_misfit")
    number(payload.get("float_bias", 0.0), -LARGEST_LOG, LARGEST_LOG, "float_bias")
    for task, value in payload["tasks"].items():
        number(value, -LARGEST_LOG, LARGEST_LOG, f"tasks.{task}")
    _check_population(payload["population"], payload["spread"])
    for name, model in payload["models"].items():
        _check_model(model, f"models.{name}")
    for name, known in payload["families"].items():
        if not all(isinstance(one, str) for one in known["model_types"]):
            raise DamagedCalibration(f"families.{name}.model_types are not names")
        if known["vocab"] is not None:
            count(known["vocab"], 1, MOST_TOKENS, f"families.{name}.vocab")
    own = payload["own"]
    if not isinstance(own, str) or own not in payload["models"]:
        raise DamagedCalibration(f"own is {own!r:.40}, which is none of its models")
    _check_range(payload["range"])
    layers = int(payload["models"][own]["shape"][1])
    if payload.get("probed") is not None:
        _check_probed(payload["probed"], layers)
    if payload.get("key_ranges") is not None:
        _check_key_ranges(payload["key_ranges"], layers)
    if payload.get("own_noise") is not None:
        _check_own_noise(payload["own_noise"], layers)
    _check_measured(payload, layers)


def _check_population(population: Mapping[str, Any], spread: Mapping[str, Any]) -> None:
    names = list(population["names"])
    if not {f"scale:{component}" for component in (*COMPONENTS, "read")} <= set(names):
        raise DamagedCalibration("population.names lacks a scale")
    for value in entries(population["mean"], len(names), "population.mean"):
        number(value, -LARGEST_LOG, LARGEST_LOG, "population.mean")
    for row in entries(population["covariance"], len(names), "population.covariance"):
        for value in entries(row, len(names), "population.covariance"):
            number(value, -(WIDEST**2), WIDEST**2, "population.covariance")
    for name in (*SPREADS, "biased_outlier", "misfit"):
        number(spread[name], 0.0, WIDEST, f"spread.{name}")
    number(spread.get("source", 0.0), 0.0, WIDEST, "spread.source")


def _check_model(model: Mapping[str, Any], where: str) -> None:
    for value in entries(model["shape"], 3, f"{where}.shape"):
        count(value, 0, MOST_TOKENS, f"{where}.shape")
    layers = model["shape"][1]
    for value in entries(model["mean"], len(COMPONENTS), f"{where}.mean"):
        number(value, -LARGEST_LOG, LARGEST_LOG, f"{where}.mean")
    for value in entries(model["sd"], len(COMPONENTS), f"{where}.sd"):
        number(value, 0.0, WIDEST, f"{where}.sd")
    for layer in model["outlier_layers"]:
        count(layer, 0, layers - 1, f"{where}.outlier_layers")
    number(model["outlier_share"], 0.0, 1.0, f"{where}.outlier_share")
    if model["provenance"] not in PROVENANCES:
        raise DamagedCalibration(f"{where}.provenance is {model['provenance']!r:.40}")
    if not isinstance(model["read"], str) or (model["read"] and model["read"] not in bundled()):
        raise DamagedCalibration(f"{where}.read is no model whose keys are known")
    if not all(isinstance(name, str) for name in model["names"]):
        raise DamagedCalibration(f"{where}.names are not names")
    if not isinstance(model["family"], str | None):
        raise DamagedCalibration(f"{where}.family is no name")


def _check_range(known: Mapping[str, Any]) -> None:
    for value in entries(known["context"], 2, "range.context"):
        count(value, 1, MOST_TOKENS, "range.context")
    for name, rows in known["rows"].items():
        count(rows, 0, MOST_TOKENS, f"range.rows.{name}")


def _check_probed(probed: Mapping[str, Any], layers: int) -> None:
    for side in ("keys", "values"):
        shares = entries(probed[side], layers, f"probed.{side}")
        for share in shares:
            number(share, 0.0, 1.0, f"probed.{side}")
        number(sum(shares), 0.0, 1.0 + 1e-6 * layers, f"the sum of probed.{side}")
    _check_layers(probed["protect"], layers)


def _check_layers(protect: Any, layers: int) -> None:
    for chosen in protect:
        for layer in chosen:
            count(layer, 0, layers - 1, "probed.protect")
        if list(chosen) != sorted(set(chosen)):
            raise DamagedCalibration("probed.protect names a layer twice, or not in order")


def _check_key_ranges(kept: Any, layers: int) -> None:
    variance = KeyRanges.read(kept).variance
    if variance.shape[-1] != layers or not (variance >= 0).all() or not (variance < 1e12).all():
        raise DamagedCalibration("key_ranges are no table of this model's layers")


def _check_own_noise(own: Mapping[str, Any], layers: int) -> None:
    number(own["z"], 0.0, WIDEST, "own_noise.z")
    if own.get("attention") is not None:
        AttentionNoise.of(own["attention"], layers)
    for kind, z in own.get("kind_z", {}).items():
        number(z, 0.0, WIDEST, f"own_noise.kind_z.{kind}")
    needed = {*COEFFICIENTS, *SLOPES, *(f"scale:{name}" for name in COMPONENTS)}
    needed |= {name for entries in TABLES.values() for name in entries}
    if not needed <= set(own["values"]):
        raise DamagedCalibration("own_noise.values lacks a parameter")
    for name, value in own["values"].items():
        number(value, -LARGEST_LOG, LARGEST_LOG, f"own_noise.values.{name}")
    for code, value in own["formats"]:
        count(code, -(2**63), 2**63 - 1, "own_noise.formats")
        number(value, -LARGEST_LOG, LARGEST_LOG, "own_noise.formats")


def _check_measured(payload: Mapping[str, Any], layers: int) -> None:
    for entry in payload.get("measured", []):
        _check_configuration(entry["config"], layers)
        count(entry["context"], 1, MOST_TOKENS, "measured.context")
        for kind, (retention, sd) in entry["kinds"].items():
            number(retention, 0.0, MOST_KEPT, f"measured.{kind}")
            number(sd, 0.0, MOST_KEPT, f"measured.{kind}")
    for entry in payload.get("broken") or []:
        _check_configuration(entry["config"], layers)
        count(entry["context"], 1, MOST_TOKENS, "broken.context")
    if payload.get("breaks") is not None:
        count(payload["breaks"], 1, MOST_TOKENS, "breaks")


def _check_configuration(text: Any, layers: int) -> None:
    protection = Configuration.parse(text).protection
    if protection is not None and max(protection.layers) >= layers:
        raise DamagedCalibration(f"{text!r:.80} protects a layer that the model does not have")
