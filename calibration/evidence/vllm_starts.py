"""How right vLLM's starts are predicted: every shipped row, as median and worst error.

    python -m kvpareto.calibration.evidence.vllm_starts

A row is a start of the real engine (profiles/vllm). Its tokens are predicted with the weights that
it printed, and from the config alone where the whole model was run. Rows that the rules were
written from are told apart from those nobody looked at.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from statistics import median
from typing import Any

from ...planner.engines.vllm.settings import ServeSettings
from ...planner.engines.vllm.start import start
from ...planner.hardware.gpu_names import find_gpu
from ...planner.load_model import load_model
from ...planner.models.spec import ModelSpec
from ...profiles import read
from ..vllm.row_server import FORMATS, MODELS, settings_of

ROWS = "vllm/starts_0.26_h200.jsonl"
LATER = "vllm/speeds_0.26_h200.jsonl"
"""Starts that were made when the rules stood, on one card and on two."""
SHAPES = MODELS | {
    "qwennext": "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "qwen25_7": "Qwen/Qwen2.5-7B-Instruct",
    "llama1": "meta-llama/Llama-3.2-1B-Instruct",
    "mistral7": "mistralai/Mistral-7B-Instruct-v0.3",
    "gemma2_9": "google/gemma-2-9b-it",
    "phi4": "microsoft/phi-4",
    "nemotron": "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
}
"""Shapes of the rows that are bundled models, or lie beside them."""
LOOKED_AT = {
    *("q30-auto", "oss-auto", "ds-auto", "gr-auto", "s-l8-auto", "l8-int8"),
    *("q30-fp8", "nemo-auto", "qn-fp8", "oss-fp8", "oss-int8", "m-gemma", "v-gemma"),
}
"""Rows that were looked at while the rules of the activation were written, and those of padded
experts and of a second rotary table."""
Row = dict[str, Any]


def rows() -> list[Row]:
    """Starts of an unchanged engine that profiled its memory; in others Triton was missing, or the
    cache's bytes were given."""
    lines = (json.loads(line) for name in (ROWS, LATER) for line in read(name).splitlines())
    return [
        {"starts": True, **row}
        for row in lines
        if "blocks" in row
        and row.get("triton", True)
        and "kv_cache_memory_bytes" not in row
        and row["shape"] in SHAPES
    ]


@cache
def model(shape: str, layers: int | None) -> ModelSpec:
    """The shape of a row, cut to its layers."""
    spec = load_model(SHAPES[shape], offline=True)
    return replace(spec, layers=spec.layers[:layers]) if layers else spec


def started_with(row: Row) -> ServeSettings:
    """What the row was started with."""
    return settings_of(
        row,
        quantization=FORMATS.get(row["weights"], ""),
        tensor_parallel=row.get("cards", 1),
    )


def error(row: Row, *, weights_given: bool) -> float | None:
    """Relative error of the tokens; None where the row cannot be predicted so, or did not start."""
    if not row["starts"] or (not weights_given and row["layers"]):
        return None
    given = row["weights_bytes"] if weights_given else None
    gpu = find_gpu(row["gpu"].removeprefix("NVIDIA "))
    answer = start(model(row["shape"], row["layers"]), gpu, started_with(row), given)
    return answer.tokens.expected / int(row["tokens"]) - 1


def table(of: Iterable[Row], *, weights_given: bool) -> str:
    """Rows, models, median and worst error, in a line."""
    of = list(of)
    errors = [(e, r) for r in of if (e := error(r, weights_given=weights_given)) is not None]
    if not errors:
        return "no rows"
    sizes = [abs(e) for e, _ in errors]
    worst = max(errors, key=lambda pair: abs(pair[0]))
    models = len({r["shape"] for _, r in errors})
    return (
        f"{len(errors):3} rows of {models:2} models, median {median(sizes):.2%}, worst "
        f"{max(sizes):.2%} ({worst[1]['id']})"
    )


def main(arguments: Sequence[str] = ()) -> None:
    """Print the tables."""
    every = rows()
    held = [row for row in every if row["id"] not in LOOKED_AT]
    for name, of in (("held out", held), ("looked at", [r for r in every if r not in held])):
        print(f"{name:10} weights as printed   {table(of, weights_given=True)}")
        print(f"{name:10} from the config      {table(of, weights_given=False)}")


if __name__ == "__main__":
    main()
