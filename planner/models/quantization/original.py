"""The model that a quantized checkpoint was made of, from which a plan can be made instead.

Its name says so (Qwen3-8B-AWQ) where its shape agrees; else a bundled model of its shape stands in.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from .... import profiles
from ...errors import BadConfig
from ..bundled import bundled_index
from ..model_name import FORMAT_IN_NAME
from ..read_config import read_model
from ..spec import ModelSpec
from .section import find_section

PUBLISHED_AS = ("fp8", "mxfp4")
"""Methods that some models are published in: such a checkpoint is its own original."""


def plan_of_original(spec: ModelSpec) -> str:
    """What to type, or to give, to plan the model that the checkpoint `spec` was made of."""
    same = _of_its_shape(spec)
    name = _plain(spec.name)
    named = [known for known in same if _plain(known) == name]
    if named:
        return f"-m {named[0]} plans the original"
    if same:
        return f"-m {same[0]} plans a model of its shape, unquantized"
    return (
        "a copy of its config.json without quantization_config plans the original, and so does "
        "that one's hub id"
    )


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the original: `config` without what says how its weights are stored."""
    left = {key: value for key, value in config.items() if not _speaks_of_weights(key)}
    for key, value in left.items():
        if isinstance(value, Mapping):
            left[key] = {k: v for k, v in value.items() if not _speaks_of_weights(k)}
    return left


def _of_its_shape(spec: ModelSpec) -> list[str]:
    """Bundled models of that shape, and their aliases."""
    same = [known for known, row in bundled_index()["models"].items() if _alike(spec, row)]
    return same + [name for name, known in bundled_index()["aliases"].items() if known in same]


def _plain(name: str) -> str:
    """A model's name without its owner and its format."""
    return FORMAT_IN_NAME.sub("", name.split("/")[-1]).lower()


def _alike(spec: ModelSpec, row: Mapping[str, str]) -> bool:
    """Whether a bundled config describes the same layers and matrices, not rounded anew."""
    config = json.loads(profiles.read(f"models/{row['file']}"))
    flat = {**config, **config["text_config"]} if "text_config" in config else config
    sizes = [flat.get(key) for key in ("hidden_size", "vocab_size", "num_hidden_layers")]
    if sizes != [spec.hidden, spec.vocab, len(spec.layers)] or "quantization_file" in row:
        return False
    section = find_section(config)
    if section is not None and section.get("quant_method") not in PUBLISHED_AS:
        return False
    try:
        known = read_model(config, spec.name)
    except BadConfig:
        return False
    shapes = [{(g.name, g.shape, g.count) for g in one.tensors} for one in (known, spec)]
    alike = known.model_type == spec.model_type and known.max_context == spec.max_context
    return alike and shapes[0] == shapes[1]


def _speaks_of_weights(key: str) -> bool:
    return re.match(r"quant(?:i[sz]|_|$)|compression", key, re.IGNORECASE) is not None
