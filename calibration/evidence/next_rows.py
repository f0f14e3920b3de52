"""The last rows found, which no fit has: predicted once, by the fit that shipped then.

    python -m kvpareto.calibration.evidence.next_rows           the table in docs/accuracy_blind.md
    python -m kvpareto.calibration.evidence.next_rows --misses 20      and the largest errors

They were collected while the form and the intervals of the fit were being changed, by another hand.
docs/accuracy_blind.md says what of them was seen by then. Models are predicted as in blind_rows.py.
"""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from ...planner.accuracy.predict import published
from ...planner.accuracy.predictor import Predictor
from ..fit.accuracy_rows import AccuracyRow
from ..fit.mixed_effects import KnownModel
from ..fit.published import FOLDER, read_models
from ..fit.published_more import NEXT, more_rows
from .blind_rows import BASES, BY_CHANNEL, LONG, foreseen, models_of_rows, parts_table
from .marked_tables import markdown_table, write_tables

MIXTURES = "mixtral", "a3b", "a22b", "deepseek-v2", "moonlight", "longcat", "glm-4.7"
"""Parts of the names of mixtures of experts."""


def next_table(
    predictor: Predictor, rows: Sequence[AccuracyRow], models: Mapping[str, KnownModel]
) -> str:
    """Errors and coverage: by bits, layout, what a prediction rests on, model and task."""
    found = foreseen(predictor, rows, models)
    basis = found[3]
    cache = np.array([row.quantizes_cache for row in rows])
    keys, values = (np.array([getattr(row, side) for row in rows]) for side in ("k_bits", "v_bits"))
    fewest = np.minimum(keys, values)
    weight = np.array([row.weight_bits for row in rows])
    turned = np.array([row.rotate_k for row in rows])
    channels = np.array([row.granularity in BY_CHANNEL for row in rows])
    kinds = np.array([row.kind for row in rows])
    context = np.array([row.context for row in rows])
    biases = np.array([models[row.model].features.qkv_bias for row in rows])
    latents = np.array([not models[row.model].shape[2] for row in rows])
    experts = np.array([any(name in row.model for name in MIXTURES) for row in rows])
    parts = {
        "cache": cache,
        "cache, no latents": cache & ~latents,
        **{f"{name}, no latents": cache & ~latents & (basis == name) for name in BASES},
        "latents": cache & latents,
        "mixtures of experts": cache & experts,
        "mixtures, no latents": cache & experts & ~latents,
        "2 bits": cache & (fewest == 2),
        "2 bits, keys per channel": cache & (fewest == 2) & channels,
        "2 bits, rotated": cache & (fewest == 2) & turned,
        "3 bits": cache & (fewest > 2) & (fewest <= 3),
        "4 bits": cache & (fewest > 3) & (fewest <= 4),
        "5 to 8 bits": cache & (fewest > 4) & (fewest <= 8),
        "values alone": cache & (keys == 16),
        "rotated": cache & turned,
        "keys per channel": cache & channels,
        f"{LONG:,} tokens and more": cache & (context >= LONG),
        "long chains of reasoning": cache & (kinds == "long_reasoning"),
        "perplexities": cache & (kinds == "perplexity"),
        "models with key biases": cache & (biases > 0),
        "models without": cache & (biases == 0),
        **{f"weights alone, {bits} bits": ~cache & (weight == bits) for bits in (4, 3, 2)},
    }
    return parts_table(found, rows, parts)


def models_of_next() -> dict[str, KnownModel]:
    """With those that only these rows have."""
    own = map(KnownModel.read, read_models(FOLDER / "models_next.csv"))
    return models_of_rows() | {model.key: model for model in own}


def largest(
    predictor: Predictor,
    rows: Sequence[AccuracyRow],
    models: Mapping[str, KnownModel],
    number: int,
) -> str:
    """The rows whose prediction is furthest off."""
    predicted, _, held, basis = foreseen(predictor, rows, models)
    scores = np.array([row.retention for row in rows])
    lines = [
        [
            *(rows[i].model, rows[i].task, f"W{rows[i].weight_bits:g}"),
            *(f"K{rows[i].k_bits:g}V{rows[i].v_bits:g}", rows[i].granularity, rows[i].rotate_k),
            *(float(scores[i]), float(predicted[i]), bool(held[i]), str(basis[i])),
        ]
        for i in np.argsort(-np.abs(predicted - scores))[:number]
    ]
    header = ["model", "task", "weights", "cache", "layout", "rotated", "kept", "said", "held"]
    return markdown_table([*header, "rests on"], lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--misses", type=int, default=0, help="largest errors shown")
    misses = parser.parse_args(arguments).misses
    models, rows, predictor = models_of_next(), more_rows(FOLDER, (NEXT,)), published()
    table = next_table(predictor, rows, models)
    print(table)
    if misses:
        print(largest(predictor, rows, models, misses))
    write_tables({"next": table})


if __name__ == "__main__":
    main()
