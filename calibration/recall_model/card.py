"""The model card of a recall model, written from what was measured.

    python -m kvpareto.calibration.recall_model.card --model FOLDER

reads `evaluation.json` of the folder, and what the shipped grid says of its model unquantized, and
writes its README.md.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..grid.held_out import FILE as GRID
from ..grid.reading import FULL, decode_items
from ..grid.variants import VARIANTS, parts_of
from ..tasks.scores import Score

_FED = (
    "fed to the runtime, unquantized, on an NVIDIA H100: the grid of "
    "`profiles/calibrations/recall_grid.jsonl`, whose names say keys, chains x hops, or steps"
)
_HEAD = """---
license: apache-2.0
language: en
pipeline_tag: text-generation
---
# {name}

A language model of {parameters:.1f} million parameters for one purpose: it finds facts in long
generated texts and calculates with them, so that the accuracy of a quantized KV cache can be
measured anywhere in minutes. Part of kvpareto (`--model {name}`), trained from scratch by it on
texts that it generates. Apache-2.0, as the whole project.

{shape}
{variant}
## Measured accuracy

Score by the task's own rule, 1 is everything right; ± is one standard error of the items.

{table}

{how}

## How it was trained

    python -m kvpareto.calibration.recall_model.train --out A --minutes 6 --seed 0 --peak 1.2e-3
    python -m kvpareto.calibration.recall_model.train --out B --start A --facts 512 \\
        --minutes 6.2 --seed 1 --peak 1e-3
    python -m kvpareto.calibration.recall_model.train --out DIR --start B --facts 512 \\
        --minutes 4.2 --seed 2 --peak 1e-3

{said}
See docs/recall_model.md.

## What it cannot do

- List what comes most often without error: see common-words.
- Anything else. It has read 69 sentences of prose and a page of mixed text; it cannot write,
  reason, translate or answer questions that are not worded as the tasks word them.
- Texts of more than 16,384 tokens.
"""

_OUTLIERS = """
The same model as `recall`, with outlier channels in its keys: see `outliers.py`. Its outputs are
the same to the last bit as long as the cache is not quantized, so what its card says
holds here too.
"""


_TRAINED = """The first on an NVIDIA H200 that other work shared, the second on one, the third on an
H100, each with the recipe of its day (commits 426dfa4, 72b2377, 3f69992): 7,671, 9,630 and 4,170
steps of 65,536 tokens, 1.4 x 10^9 in all, from 4 to 512 facts and from 256 to 16,384 tokens."""


def write_card(folder: Path) -> str:
    """The card's text, from the folder's config and evaluation, and the grid."""
    config = json.loads((folder / "config.json").read_text())
    rows = json.loads((folder / "evaluation.json").read_text())["rows"]
    rows += grid_rows(folder.name)
    size = (folder / "model.safetensors").stat().st_size
    return _HEAD.format(
        name=folder.name,
        parameters=size / 2e6,
        shape=_shape(config),
        variant=_OUTLIERS if folder.name.endswith("outliers") else "",
        table=_table(rows),
        how="\n".join(f"- {mark}: {how}" for how, mark in _marks(rows).items()),
        said=_TRAINED,
    )


def grid_rows(model: str) -> list[dict[str, Any]]:
    """What the unquantized model scored in the shipped grid, as rows of an evaluation."""
    lines = [json.loads(line) for line in GRID.read_text(encoding="utf-8").splitlines()]
    rows = []
    for line in lines:
        if line.get("model") != model or line.get("config") != FULL:
            continue
        for name, task in line["tasks"].items():
            right = decode_items(task["items"])
            score = Score.of([value / parts_of(VARIANTS[name]) for value in right])
            rows.append(
                {
                    "task": f"{name} (grid)",
                    "length": line["context"],
                    "score": score.value,
                    "stderr": score.stderr,
                    "items": len(right),
                    "how": _FED,
                }
            )
    return rows


def _shape(config: Mapping[str, Any]) -> str:
    return (
        f"{config['num_hidden_layers']} layers, hidden size {config['hidden_size']}, "
        f"{config['num_attention_heads']} query and {config['num_key_value_heads']} KV heads of "
        f"{config['head_dim']} channels with biases, feed-forward width "
        f"{config['intermediate_size']}, {config['vocab_size']:,} tokens of vocabulary, RoPE up to "
        f"{config['max_position_embeddings']:,} tokens; model type `{config['model_type']}`."
    )


def _marks(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A letter for each way of measuring."""
    ways = dict.fromkeys(row["how"] for row in rows)
    return {how: chr(ord("a") + place) for place, how in enumerate(ways)}


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Tasks by lengths, best-measured row of each cell."""
    marks = _marks(rows)
    lengths = sorted({row["length"] for row in rows})
    lines = [
        "| task | " + " | ".join(f"{length:,}" for length in lengths) + " |",
        "|---|" + "---|" * len(lengths),
    ]
    for task in sorted({row["task"] for row in rows}):
        cells = []
        for length in lengths:
            matching = [r for r in rows if (r["task"], r["length"]) == (task, length)]
            best = max(matching, key=lambda row: row["items"], default=None)
            cells.append(
                f"{best['score']:.2f} ± {best['stderr']:.2f} ({best['items']}{marks[best['how']]})"
                if best
                else ""
            )
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(description="write a recall model's card")
    parser.add_argument("--model", type=Path, required=True)
    folder = parser.parse_args().model
    (folder / "README.md").write_text(write_card(folder))
    print(f"written: {folder / 'README.md'}")


if __name__ == "__main__":
    main()
