"""Tables of key noise that are shipped: of checkpoints that were at hand, and of public facts.

    python -m kvpareto.calibration.fit.key_tables HUB_ID FOLDER SOURCE
        reads the checkpoint in FOLDER
    python -m kvpareto.calibration.fit.key_tables HUB_ID SHAPE SOURCE --norms 605,… --like FOLDER
        of a model of which only the norm of each layer's key bias is public: the channels of a
        layer are those of the related checkpoint in FOLDER, of its first layer where the norm is
        above LARGE, scaled to the norm. SHAPE is a folder with the model's config.json.

writes profiles/key_ranges/OWNER--NAME.json, by which plans of that hub id foresee what its keys
make of a format without the checkpoint. What is shipped is the table, no weights.
"""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...planner.accuracy.key_noise.at_hand import payload_of
from ...planner.accuracy.key_noise.checkpoint_keys import key_layers
from ...planner.accuracy.key_noise.key_ranges import FOLDER, KeyRanges
from ...planner.accuracy.key_noise.key_simulation import KeyLayer, key_ranges
from ...planner.load_model import load_model
from ...planner.models.spec import Attention
from .published import FOLDER as PUBLISHED

TABLES = PUBLISHED.parent / FOLDER
LARGE = 100.0
"""Norm of a key bias beyond which a layer is one of the few that set the ranges."""


def write(name: str, ranges: KeyRanges, folder: Path = TABLES) -> None:
    """Ship the table of a hub id."""
    text = json.dumps(payload_of(ranges), separators=(",", ":"))
    path = folder / f"{name.replace('/', '--')}.json"
    path.write_text(text.replace('],"', '],\n"') + "\n", encoding="utf-8")
    known = sorted(p.stem.replace("--", "/", 1) for p in folder.glob("*--*.json"))
    (folder / "index.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def by_norms(
    norms: Sequence[float], kv_heads: int, query_heads: int, like: Sequence[KeyLayer]
) -> list[KeyLayer]:
    """Layers whose key biases have these norms, shaped as those of a related model."""
    layers = []
    for number, norm in enumerate(norms):
        known = like[0 if norm > LARGE else 1 + number % (len(like) - 1)]
        assert known.key_bias is not None
        assert known.query_bias is not None
        heads = np.resize(known.key_bias, (kv_heads, known.dim))
        asked = np.resize(known.query_bias, (query_heads, known.dim))
        scale = norm / np.linalg.norm(heads)
        layers.append(
            replace(
                known,
                kv_heads=kv_heads,
                query_heads=query_heads,
                key_bias=(heads * scale).astype(np.float32),
                query_bias=asked,
            )
        )
    return layers


def main() -> None:
    parser = ArgumentParser(prog="kvpareto.calibration.fit.key_tables")
    parser.add_argument("name", help="hub id")
    parser.add_argument("folder", type=Path, help="its checkpoint, or its config.json alone")
    parser.add_argument("source", help="where the numbers come from")
    parser.add_argument("--norms", help="norm of each layer's key bias, in the layers' order")
    parser.add_argument("--like", type=Path, help="folder of a related checkpoint")
    options = parser.parse_args()
    spec = load_model(str(options.folder), offline=True)
    if options.norms is None:
        layers = list(key_layers(spec, options.folder))
    else:
        related = key_layers(load_model(str(options.like), offline=True), options.like)
        mixer = next(m for m, _ in spec.mixer_counts if isinstance(m, Attention))
        norms = [float(text) for text in options.norms.split(",")]
        layers = by_norms(norms, mixer.kv_heads, mixer.query_heads, related)
    write(options.name, key_ranges(layers, options.source))


if __name__ == "__main__":
    main()
