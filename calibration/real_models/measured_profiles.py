"""Calibrations of the measured pretrained models, as they ship (profiles/measured/).

Rows of `profiles/calibrations/real_*.jsonl` -> each model's own noise on top of the published fit,
every measured configuration, and how far predictions of left-out configurations were off. What is
shared with other models is not repeated: planner/accuracy/shipped_measurements.py adds it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...planner.accuracy.model_features import shape_of
from ...planner.accuracy.predict import published
from ...planner.accuracy.shipped_measurements import FOLDER
from ...planner.formats.configuration import Configuration
from ...planner.load_model import DEMO, DEMO_CONFIG, load_model
from ...planner.models.spec import ModelSpec
from ..fit.accuracy_rows import AccuracyRow
from ..fit.measured_models import SHIPPED, SOURCES, measured_runs, scored_runs
from ..fit.mixed_effects import KnownModel
from ..fit.profile import mean, own_noise
from .rows import read_rows

OUT = SOURCES.parent / FOLDER
MIXES = {
    "smollm2.gguf": "Q4_1",
    "qwen05.gguf": "Q4_K_M",
    "qwen15.gguf": "Q4_K_M",
    "gemma270.gguf": "Q4_K_M",
}
"""What the measured files' own headers say that they are."""
HALF = 0.5
Run = tuple[Configuration, AccuracyRow]
"""What was run, and the row that it gave."""


def write_profiles(out: Path = OUT) -> None:
    """Write a file for each measured model, and their index."""
    out.mkdir(exist_ok=True)
    headers = {}
    points: dict[str, int] = {}
    for header, point in read_rows(SOURCES.glob("real_*.jsonl")):
        headers[point["model"]] = header
        points[point["model"]] = points.get(point["model"], 0) + 1
    runs, scored = measured_runs(models=SHIPPED), scored_runs(models=SHIPPED)
    index = {}
    for hub_id, key in SHIPPED.items():
        spec = load_model(hub_id, offline=True)
        name = f"{hub_id.replace('/', '--')}.json"
        own, told = ([run for run in rows if run[1].model == key] for rows in (runs, scored))
        payload = payload_of(spec, own, told)
        (out / name).write_text(_text(payload), encoding="utf-8")
        source, where = headers[hub_id]["source"], headers[hub_id]["environment"]
        mix = MIXES[source["file"]]
        index[hub_id] = {
            "file": name,
            "shape": list(shape_of(spec)),
            "weights": f"{mix}, SHA-256 {source['sha256']}",
            "gpu": where["gpu"],
            "points": points[hub_id],
            **({"demo": DEMO} if hub_id == DEMO_CONFIG else {}),
            "held_out": payload["held_out"],
            "note": f"measured on an {where['gpu']} with the weights of a {mix} file (SHA-256 "
            f"{source['sha256'][:12]}...): 16 bits mean that file's values, and fewer are on top"
            + (f"; {source['tied']}" if "tied" in source else ""),
        }
    (out / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def payload_of(spec: ModelSpec, runs: Sequence[Run], told: Sequence[Run] = ()) -> dict[str, Any]:
    """What the runs of one model add to the published payload; from those `told` nothing is learnt,
    they stand as measured."""
    shipped, rows = published(), [row for _, row in runs]
    effects = shipped.models.of(spec)
    model = KnownModel(f"own:{rows[0].model}", effects.features, (), shape_of(spec))
    ranges = effects.features.ranges
    entry = {
        "family": effects.features.family,
        "names": [],
        "shape": list(model.shape),
        "parameters_b": effects.features.parameters_b,
        "read": ranges.name if ranges is not None else "",
        "outlier_layers": [],
        "outlier_share": 0.0,
        "rows": len(rows),
        "cache_rows": sum(row.quantizes_cache for row in rows),
        "provenance": "calibrated",
        "mean": _rounded(effects.mean),
        "sd": _rounded(effects.sd),
    }
    measured = measured_entries([*runs, *told])
    return {
        "own": model.key,
        "models": {model.key: entry},
        **own_noise(rows, model, shipped, effects),
        "measured": measured,
        "broken": broken_entries(measured),
    }


def measured_entries(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Retention on tasks of each configuration that was run, by context and kind. The text's
    probability moves the noise, but is no kind of task that a plan promises."""
    found: dict[tuple[str, int], dict[str, list[tuple[float, float]]]] = {}
    for config, row in runs:
        if row.kind != "perplexity":
            kinds = found.setdefault((str(config), row.context), {})
            kinds.setdefault(row.kind, []).append((row.retention, row.sd))
    return [
        {"config": config, "context": context, "kinds": {k: mean(v) for k, v in kinds.items()}}
        for (config, context), kinds in sorted(found.items())
    ]


def broken_entries(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Configurations that keep less than half, mean over kinds, at this and all longer contexts."""
    by_config: dict[str, dict[int, float]] = {}
    for entry in measured:
        kept = [retention for retention, _ in entry["kinds"].values()]
        by_config.setdefault(entry["config"], {})[entry["context"]] = sum(kept) / len(kept)
    found = []
    for config, contexts in by_config.items():
        first = None
        for context in sorted(contexts, reverse=True):
            if contexts[context] >= HALF:
                break
            first = context
        if first is not None:
            found.append({"config": config, "context": first})
    return found


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.6g}") for value in np.asarray(values).tolist()]


def _text(payload: dict[str, Any]) -> str:
    """A line for each key, and for each measured configuration."""
    lines = []
    for key, value in payload.items():
        if isinstance(value, list):
            inner = ",\n".join(f"  {json.dumps(one)}" for one in value)
            lines.append(f" {json.dumps(key)}: [\n{inner}\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
