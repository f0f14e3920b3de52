"""A collapse foreseen from the checkpoint, without a row of its family: the docs' table.

    python -m kvpareto.calibration.evidence.cliff_table

Every row of Qwen2.5 and of what was made of it is left out, and both measured Coders are (they are
in no fit); the key biases of their checkpoints are read. What is shown is measured: the 0.5B model
by this runtime and by llama.cpp, the 1.5B model by this runtime on a CPU, text alone
(profiles/calibrations/cpu_qwen15.jsonl).
"""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...planner.accuracy.format_arrays import formats_of, with_read_keys
from ...planner.accuracy.interval import inside, with_high
from ...planner.accuracy.key_noise.key_ranges import bundled_ranges
from ...planner.accuracy.predict import published
from ...planner.accuracy.predictor import Predictor
from ...planner.formats.configuration import Configuration
from ...planner.load_model import load_model
from ..fit.accuracy_rows import AccuracyRow, read_rows
from ..fit.coefficients import to_payload
from ..fit.cross_validation import misfits_of, observed, predict_rows, with_misfits
from ..fit.measured_models import SOURCES, measured_runs, text_rows
from ..fit.mixed_effects import KnownModel
from ..fit.published import FOLDER, read_models
from ..fit.regression import FLOOR, fit_rows
from .marked_tables import markdown_table, write_tables

MODEL, LARGER = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
HUB_IDS = {
    MODEL: "Qwen/Qwen2.5-Coder-0.5B-Instruct",
    LARGER: "Qwen/Qwen2.5-Coder-1.5B-Instruct",
}
KIN = ("qwen2.5", "deepseek-r1-distill-qwen", "qwq")
"""Beginnings of the keys of all models of the family in the published rows."""
SHOWN = (
    ("w16a16-k4v4", "gsm8k", "per token, GSM8K"),
    ("w16a16-k4v4", "needle", "per token, needles at 2k"),
    ("w16a16-k4v4+rot", "needle", "rotated, needles at 2k"),
    ("w16a16-k4v4+smooth", "needle", "smoothed, needles at 2k"),
    ("w16a16-k4v4-g32+smooth+rot", "needle", "both in groups of 32, needles at 2k"),
    ("w16a16-k4v4-kc", "gsm8k", "per channel, GSM8K"),
    ("w16a16-k4v4-kc", "needle", "per channel, needles at 2k"),
    ("w16a16-k4v4+rot+protect{0}:k8v8", "text", "rotated, layer 0 in 8 bits, text at 4k"),
)
LARGER_SHOWN = (
    ("w16a16-k4v4", "per token"),
    ("w16a16-k4v4-g32", "groups of 32"),
    ("w16a16-k4v4+rot", "rotated"),
    ("w16a16-k4v4-g32+rot", "rotated, groups of 32"),
    ("w16a16-k4v4+smooth", "smoothed"),
    ("w16a16-k4v4-g32+smooth+rot", "both in groups of 32"),
    ("w16a16-k4v4-kc", "per channel"),
    ("w16a16-k4v4+protect{0}:k8v8", "layer 0 in 8 bits"),
    ("w16a16-k4v4+rot+protect{0}:k8v8", "rotated, layer 0 in 8 bits"),
    ("w16a16-k8v8", "8 bits"),
)
SERVED = ("q8_0", "q5_1", "q4_0", "iq4_nl")
"""Types of llama.cpp's cache, for keys and values, of which needles were looked for."""
NARROW = 0.4
Line = tuple[str, AccuracyRow, tuple[float, float, float]]
"""Words, what was measured, and low, predicted, high."""


def blind_predictor() -> tuple[Predictor, dict[str, KnownModel]]:
    """A fit that has seen no Qwen2.5, at the shipped intervals' widths."""
    models = {line["key"]: KnownModel.read(line) for line in read_models(FOLDER / "models.csv")}
    rows = [row for row in read_rows(FOLDER / "accuracy.csv") if not row.model.startswith(KIN)]
    shipped = published().payload
    payload = to_payload(fit_rows(rows, models), rows, models, FOLDER, shipped["z"])
    larger = load_model(HUB_IDS[LARGER], offline=True)
    features = replace(
        models[MODEL].features,
        parameters_b=larger.parameters / 1e9,
        head_dim=128,
        layers=len(larger.layers),
        ranges=bundled_ranges(HUB_IDS[LARGER]),
    )
    models[LARGER] = replace(models[MODEL], key=LARGER, features=features)
    return with_misfits(Predictor(payload), *misfits_of(published())), models


def foreseen(
    predictor: Predictor, models: dict[str, KnownModel], row: AccuracyRow
) -> tuple[float, float, float]:
    """Low, predicted and high of a row of one of the two models."""
    effects = predictor.models.unseen(models[row.model].features)
    low, middle, high = (
        float(predict_rows(predictor, effects, [row], models, z)[0])
        for z in (effects.z, 0.0, -effects.z)
    )
    return low, middle, high


def is_held(row: AccuracyRow, ends: tuple[float, float, float]) -> bool:
    """Whether the interval holds the score, by the rule of all hold-outs."""
    low, middle, high = (np.array([end]) for end in ends)
    sd = np.hypot([row.sd], FLOOR)
    return bool(inside(observed([row]), middle, low, high, sd)[0])


def lines_of(predictor: Predictor, models: dict[str, KnownModel]) -> list[Line]:
    """All cases: the smaller model's, llama.cpp's of it, then the larger model's."""
    cases = [(words, _measured(Configuration.parse(text), task)) for text, task, words in SHOWN]
    larger = {str(config): row for config, row in larger_texts()}
    cases += [(f"1.5B: {words}, text at 1k", larger[text]) for text, words in LARGER_SHOWN]
    lines = [(words, row, foreseen(predictor, models, row)) for words, row in cases]
    at = len(SHOWN)
    return [*lines[:at], *_served(predictor, models), *lines[at:]]


def larger_rows() -> list[tuple[Configuration, AccuracyRow]]:
    """All texts of the 1.5B model."""
    text = (SOURCES / "cpu_qwen15.jsonl").read_text(encoding="utf-8")
    points = [json.loads(line) for line in text.splitlines()]
    found = [p for p in points if "context" in p and "error" not in p]
    return text_rows(found, {HUB_IDS[LARGER]: LARGER})


def larger_texts() -> list[tuple[Configuration, AccuracyRow]]:
    """The 1.5B model's text at 1,024 tokens, 16-bit weights."""
    return [
        (config, row)
        for config, row in larger_rows()
        if row.context == 1024 and row.weight_bits == 16
    ]


def _served(predictor: Predictor, models: dict[str, KnownModel]) -> list[Line]:
    """llama.cpp's needles of the 0.5B model."""
    text = (SOURCES / "llama_cpp.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    score = {r["config"]: r["score"] for r in rows if r.get("task") == "needle-4"
             and r["model"] == HUB_IDS[MODEL].partition("/")[2]}  # fmt: skip
    spec, lines = load_model(HUB_IDS[MODEL], offline=True), list[Line]()
    effects = predictor.models.unseen(models[MODEL].features)
    base = next(row for _, row in measured_runs() if row.model == MODEL and row.task == "needle")
    for name in SERVED:
        config = Configuration.parse(f"wQ4_K_M-k{name}v{name}")
        formats = formats_of(spec, [config])
        formats, shares = with_read_keys(
            effects.features, formats, [()], np.array([0]), np.array([16.0])
        )
        ends = (effects.z, 0.0, -effects.z)
        cache, _ = predictor.retention(
            effects, formats, formats, shares, 256, np.array([16.0]), ("retrieval",), ends
        )
        low, middle, high = with_high(cache[:, 0], formats)[:, 0].tolist()
        kept = score[str(config)]
        sd = (max(kept * (1 - kept), 1 / 16) / 16) ** 0.5
        row = replace(base, retention=kept, sd=sd)
        lines.append((f"llama.cpp, {name}, needles at 256", row, (low, middle, high)))
    return lines


def cliff_table() -> str:
    rows: list[list[object]] = []
    for words, row, (low, middle, high) in lines_of(*blind_predictor()):
        is_narrow = high - low < NARROW
        verdict = "no"
        if is_held(row, (low, middle, high)):
            verdict = "yes" if is_narrow else "held, wider"
        rows.append([words, row.retention, middle, f"{low:.3f} to {high:.3f}", verdict])
    header = ["4-bit keys and values", "measured", "predicted", "90 % interval"]
    return markdown_table([*header, "narrower than 0.4, and holds it"], rows)


def _measured(config: Configuration, task: str) -> AccuracyRow:
    """The point of this format and task with the longest context up to 4,096 tokens."""
    found = [
        row
        for run, row in measured_runs()
        if row.model == MODEL
        and row.task == task
        and row.context <= 4096
        and run.with_chunk(None) == config
    ]
    return max(found, key=lambda row: row.context)


def main(arguments: Sequence[str] | None = None) -> None:
    del arguments
    text = cliff_table()
    print(text)
    write_tables({"cliff": text})


if __name__ == "__main__":
    main()
