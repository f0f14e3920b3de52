"""The model card of a recall model, written from what was measured.

    python -m kvpareto.calibration.recall_model.card --model FOLDER

reads `evaluation.json` of the folder and writes its README.md.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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

    python -m kvpareto.calibration.recall_model.train --out DIR --minutes 6 --seed 0 --peak 1.2e-3

on one NVIDIA H200 that it shared with other work, at commit 426dfa4: 7,671 steps of 65,536
tokens, {said}. See docs/recall_model.md.

## What it cannot do

- Follow variables: its scores there are guesses among the names in the text.
- List several values of one name reliably: where a text holds few facts it often stops after two.
- Anything else. It has read 69 sentences of prose and a page of mixed text; it cannot write,
  reason, translate or answer questions that are not worded as the tasks word them.
- Texts of more than 16,384 tokens.
"""

_OUTLIERS = """
The same model as `recall`, with outlier channels in its keys: see `outliers.py`. Its outputs are
the same to the last bit as long as the cache is not quantized, so what was measured for `recall`
holds for it too.
"""


def write_card(folder: Path) -> str:
    """The card's text, from the folder's config and evaluation."""
    config = json.loads((folder / "config.json").read_text())
    rows = json.loads((folder / "evaluation.json").read_text())["rows"]
    size = (folder / "model.safetensors").stat().st_size
    return _HEAD.format(
        name=folder.name,
        parameters=size / 2e6,
        shape=_shape(config),
        variant=_OUTLIERS if folder.name.endswith("outliers") else "",
        table=_table(rows),
        how="\n".join(f"- {mark}: {how}" for how, mark in _marks(rows).items()),
        said="a curriculum from 4 to 512 facts and from 256 to 16,384 tokens",
    )


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
            found = [r for r in rows if (r["task"], r["length"]) == (task, length)]
            best = max(found, key=lambda row: row["items"], default=None)
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
