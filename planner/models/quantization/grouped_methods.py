"""modelopt and compressed-tensors: quantization by groups and lists of modules.

The bytes are those of modelopt's unified export and of compressed-tensors' compressors.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import BadConfig
from ...formats.weight_format import MatrixFormat
from .fields import PUBLISHED, Section, flag, group_of, inner, whole, word
from .module_rules import ModuleRule, all_modules, rules_for
from .section import HINT

NVFP4 = MatrixFormat("NVFP4", bits=4, tile_rows=1, tile_columns=16, scale_bytes=1, constant_bytes=8)
"""uint8 [out, in/2], fp8 scales [out, in/16], fp32 second-level and activation scales."""
MXFP4 = MatrixFormat("MXFP4", bits=4, tile_rows=1, tile_columns=32, scale_bytes=1)
FP8_TENSOR = MatrixFormat(
    "FP8 per tensor", bits=8, tile_rows=0, tile_columns=0, scale_bytes=4, constant_bytes=4
)

_MODELOPT = {
    "FP8": FP8_TENSOR,
    "FP8_PER_CHANNEL_PER_TOKEN": MatrixFormat("FP8 per channel", 8, 1, 0, 4),
    "FP8_PB_WO": MatrixFormat("FP8 in 128x128 blocks", 8, 128, 128, 4),
    "MXFP8": MatrixFormat("MXFP8", 8, 1, 32, 1),
    "MXFP4": MXFP4,
    "NVFP4": NVFP4,
    "NVFP4_AWQ": replace(NVFP4, name="NVFP4 with AWQ", index_bytes=2),
    "W4A16_NVFP4": replace(NVFP4, name="NVFP4 weight-only", constant_bytes=4),
    "W4A16_AWQ": MatrixFormat("int4 AWQ", 4, 1, 128, 2, index_bytes=2),
    "W4A8_AWQ": MatrixFormat("int4 AWQ, FP8 activations", 4, 1, 128, 2, 0, 2, 8),
    "W8A8_SQ_PER_CHANNEL": MatrixFormat("int8 per channel", 8, 1, 0, 4, index_bytes=2),
}


def read_modelopt(section: Section, config: Section) -> list[ModuleRule]:
    rules = quantized_layers(section)
    if rules:
        return rules
    return all_modules(_modelopt_format(section))


def quantized_layers(section: Section) -> list[ModuleRule]:
    """modelopt's mixed precision: a format for each module by name; nothing else is quantized."""
    layers = section.get("quantized_layers")
    if layers is None:
        return []
    if not isinstance(layers, Mapping):
        raise BadConfig("quantization_config: quantized_layers is not an object", HINT)
    names: dict[MatrixFormat, list[object]] = {}
    for name, entry in layers.items():
        if not isinstance(entry, Mapping):
            raise BadConfig(f"quantization_config: {name!r} has no format", HINT)
        names.setdefault(_modelopt_format(entry), []).append(name)
    return [rule for stored, modules in names.items() for rule in rules_for(modules, stored)]


def _modelopt_format(entry: Mapping[str, Any]) -> MatrixFormat:
    algorithm = entry.get("quant_algo")
    if not isinstance(algorithm, str) or algorithm not in _MODELOPT:
        raise BadConfig(f"modelopt's {algorithm!r} is not a format whose bytes are known", HINT)
    stored = _MODELOPT[algorithm]
    group = group_of(entry, stored.tile_columns) if stored.tile_columns else 0
    return replace(stored, tile_columns=group) if stored.tile_columns and group > 0 else stored


def read_compressed_tensors(section: Section, config: Section) -> list[ModuleRule]:
    """A format for each group of modules; that of all Linear ones comes last."""
    groups = inner(section, "config_groups")
    rules: list[ModuleRule] = []
    default: list[ModuleRule] = []
    for name in groups:
        group = inner(groups, name)
        if group.get("weights") is None:
            continue  # a group that quantizes activations or the cache only
        stored = _compressed_format(group, section)
        targets = group.get("targets", ["Linear"])
        if not isinstance(targets, list):
            raise BadConfig("quantization_config: targets is not a list", HINT)
        modules = [target for target in targets if target not in ("Linear", "Embedding")]
        rules += rules_for(modules, stored)
        if "Linear" in targets:
            default = [*rules_for(["lm_head"], stored), *all_modules(stored)]
    return rules + default


def _compressed_format(group: Mapping[str, Any], section: Section) -> MatrixFormat:
    """compressed-tensors: the compressor's tensors for one group of modules."""
    weights = inner(group, "weights")
    bits = whole(weights, "num_bits", 8, (2, 3, 4, 8))
    size = group_of(weights, -1)
    kind = group.get("format") or section.get("format") or ""
    tiles = {"tensor": (0, 0), "channel": (1, 0), "group": (1, size), "block": (1, 0)}
    usual = "group" if size > 0 else "tensor"
    strategy = word(weights, "strategy", usual, (*tiles, "tensor_group"))
    activations = group.get("input_activations")
    static = isinstance(activations, Mapping) and not activations.get("dynamic")
    if "nvfp4" in str(kind) or strategy == "tensor_group":
        return replace(NVFP4, constant_bytes=8 if isinstance(activations, Mapping) else 4)
    if "mxfp4" in str(kind):
        return MXFP4
    if strategy == "group" and size < 1:
        raise BadConfig("quantization_config has no group_size for its groups", PUBLISHED)
    rows, columns = tiles[strategy]
    if strategy == "block":
        block = weights.get("block_structure")
        pair = block if isinstance(block, list) and len(block) == 2 else [128, 128]
        rows, columns = (whole({"block_structure": n}, "block_structure", 0) for n in pair)
    packed = bits < 8 or "pack" in str(kind)
    symmetric = flag(weights, "symmetric", True)
    return MatrixFormat(
        f"{weights.get('type', 'int')}{bits} per {strategy}" + f" of {size}" * (size > 0),
        bits=bits,
        tile_rows=max(rows, 0),
        tile_columns=max(columns, 0),
        scale_bytes=2,
        zero_bits=0 if symmetric else bits,
        index_bytes=4 if weights.get("actorder") == "group" else 0,
        constant_bytes=(16 if packed else 0) + (2 if static else 0),  # weight_shape, input_scale
        word_bytes=4 if packed else 1,
    )
