"""A collapse foreseen from the checkpoint, without a row of its family: docs/accuracy.md's table.

    python -m kvpareto.calibration.evidence.cliff_table

Every row of Qwen2.5 and of what was made of it is left out, and both measured Coders are (they are
in no fit); the key biases of Qwen2.5-Coder-0.5B's checkpoint are read. What is shown is measured.
"""

from collections.abc import Sequence

from ...planner.accuracy.predict import published
from ...planner.accuracy.predictor import Predictor
from ...planner.formats.configuration import Configuration
from ..fit.accuracy_rows import AccuracyRow, read_rows
from ..fit.coefficients import to_payload
from ..fit.cross_validation import misfits_of, predict_rows, with_misfits
from ..fit.measured_models import measured_runs
from ..fit.mixed_effects import KnownModel
from ..fit.published import FOLDER, read_models
from ..fit.regression import fit_rows
from .accuracy_tables import markdown_table, with_tables
from .refit_published import DOCS

MODEL = "qwen2.5-coder-0.5b"
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
NARROW = 0.4


def blind_predictor() -> tuple[Predictor, dict[str, KnownModel]]:
    """A fit that has seen no Qwen2.5, at the shipped intervals' widths."""
    models = {line["key"]: KnownModel.read(line) for line in read_models(FOLDER / "models.csv")}
    rows = [row for row in read_rows(FOLDER / "accuracy.csv") if not row.model.startswith(KIN)]
    shipped = published().payload
    payload = to_payload(fit_rows(rows, models), rows, models, FOLDER, shipped["z"])
    return with_misfits(Predictor(payload), misfits_of(published())), models


def cliff_table() -> str:
    predictor, models = blind_predictor()
    sensitivity = predictor.models.unseen(models[MODEL].features)
    lines: list[list[object]] = []
    for text, task, words in SHOWN:
        row = _measured(Configuration.parse(text), task)
        low, middle, high = (
            float(predict_rows(predictor, sensitivity, [row], models, z)[0])
            for z in (sensitivity.z, 0.0, -sensitivity.z)
        )
        error = 1.645 * row.sd
        held = low - error <= min(row.retention, 1.0) <= high + error
        verdict = ("yes" if high - low < NARROW else "held, wider") if held else "no"
        lines.append([words, row.retention, middle, f"{low:.3f} to {high:.3f}", verdict])
    header = ["4-bit keys and values", "measured", "predicted", "90 % interval"]
    return markdown_table([*header, "narrower than 0.4, and holds it"], lines)


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
    page = DOCS.read_text(encoding="utf-8")
    DOCS.write_text(with_tables(page, {"cliff": text}), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
