"""What formats make of the attention of models that calibrations are replayed on (replay.py).

    python -m kvpareto.calibration.evidence.attention_tables --model recall
    python -m kvpareto.calibration.evidence.attention_tables --model FOLDER --name ID --text FILE

A calibration reads it before its first run (calibration/measure/read_attention.py). The tables of
models whose weights do not ship are kept here: a line of TABLES for each, with what text it was
read on. The command writes the line of one model anew.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ...planner.accuracy.key_noise.attention_noise import AttentionNoise
from ...planner.errors import BadInput
from ...planner.formats.configuration import Configuration
from ..grid.held_out import FILE

TABLES = FILE.with_name("attention_noise.jsonl")
SKIPPED = 5000
"""Tokens at the beginning of a text file that are left out."""


def attention_of(name: str) -> AttentionNoise | None:
    """The table of a model; None where none ships."""
    line = _lines().get(name)
    return None if line is None else AttentionNoise.of(line["noise"], line["layers"])


@cache
def _lines() -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in TABLES.read_text(encoding="utf-8").splitlines()]
    return {line["model"]: line for line in lines}


def table_of(source: str, text: Path | None) -> dict[str, Any]:
    """The line of the model at `source`, by the text of a file or this project's prose."""
    # here, since a replay does without torch
    import torch

    from ...runtime import load
    from ..measure.divergence import text_windows
    from ..measure.read_attention import TOKENS, read_attention
    from ..tasks.haystack import bundled_haystack

    base = load(
        source,
        Configuration(),
        context=8,
        output=1,
        device="cpu",
        offline=True,
        dtype=torch.float32,
    )
    assert base.tokenizer is not None
    if text is None:
        prose = bundled_haystack().hide([], random.Random(0))(TOKENS)
        tokens = text_windows(base.tokenizer, prose, TOKENS, 1)[0]
    else:
        ids = base.tokenizer(text.read_text(encoding="utf-8")[:200_000])["input_ids"]
        tokens = torch.tensor(ids[SKIPPED : SKIPPED + TOKENS])
    begun = time.perf_counter()
    found = read_attention(base, tokens)
    print(f"read in {time.perf_counter() - begun:.1f} s")
    if found is None:
        raise BadInput(f"{source}: attention of a kind that is not read", "name another model")
    return {
        "text": "this project's prose" if text is None else text.name,
        "layers": len(base.spec.layers),
        "noise": found.flat,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="kvpareto.calibration.evidence.attention_tables")
    parser.add_argument("--model", required=True, help="a model folder, or a model that ships")
    parser.add_argument("--name", help="by which the model is replayed; the model's own left out")
    parser.add_argument("--text", type=Path, help="a text file; this project's prose left out")
    asked = parser.parse_args(arguments)
    name = asked.name or asked.model
    lines = _lines() if TABLES.exists() else {}
    lines[name] = {"model": name, **table_of(asked.model, asked.text)}
    text = "".join(json.dumps(lines[key], separators=(",", ":")) + "\n" for key in sorted(lines))
    TABLES.write_text(text, encoding="utf-8")
    print(f"{name} in {TABLES.name}")


if __name__ == "__main__":
    main()
