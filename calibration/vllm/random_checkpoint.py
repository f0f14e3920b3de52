"""A checkpoint's folder without weights, for starts with random ones: config.json alone.

vLLM makes the tensors that the config names (`load_format` dummy), so bytes and seconds are those
of the real model.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

QUANTIZED: dict[str, dict[str, Any]] = {
    "awq": {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 128,
        "version": "gemm",
        "zero_point": True,
        "modules_to_not_convert": None,
    },
    "gptq4": {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 128,
        "desc_act": False,
        "sym": True,
    },
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic"},
}
"""What checkpoints in these formats say of themselves."""


def write_checkpoint(
    config: Mapping[str, Any], folder: Path, weights: str = "", layers: int | None = None
) -> None:
    """`weights`: a format of QUANTIZED, "bf16" for the config without its own, "" for as it is.
    `layers`: a depth to cut to."""
    written = dict(config)
    if weights:
        written.pop("quantization_config", None)
    if weights in QUANTIZED:
        written["quantization_config"] = QUANTIZED[weights]
    if layers:
        written["num_hidden_layers"] = layers
        if "layer_types" in written:
            written["layer_types"] = written["layer_types"][:layers]
    if "dtype" not in written:
        written.setdefault("torch_dtype", "bfloat16")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")


def vocabulary(config: Mapping[str, Any]) -> int:
    """Tokens of the text model."""
    return int((config.get("text_config") or config)["vocab_size"])
