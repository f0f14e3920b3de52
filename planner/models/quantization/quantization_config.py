"""How a checkpoint is already quantized: config.json's `quantization_config`, read to rules.

Each tool has its own dialect (checkpoint_formats, checkpoint_groups). What they come to is the
same: a list of rules, first match wins, that say in which MatrixFormat a linear layer or an expert
is stored, or that it was left alone. Tensors that are no matrix products (embeddings, norms,
routers, biases, convolutions) are never quantized by any of them; the output head only where a
rule names it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import BadConfig
from ..spec import CheckpointQuantization
from . import grouped_methods as groups
from . import methods as formats
from .checkpoint_fields import HINT, Section
from .module_rules import ModuleRule, rules_for

READERS: dict[str, Callable[[Section, Section], list[ModuleRule]]] = {
    "fp8": formats.read_fp8,
    "fbgemm_fp8": formats.read_fbgemm,
    "mxfp4": formats.read_mxfp4,
    "awq": formats.read_awq,
    "gptq": formats.read_gptq,
    "auto-round": formats.read_gptq,
    "bitsandbytes": formats.read_bitsandbytes,
    "hqq": formats.read_hqq,
    "bitnet": formats.read_bitnet,
    "eetq": formats.read_eetq,
    "compressed-tensors": groups.read_compressed_tensors,
    "modelopt": groups.read_modelopt,
}
DECODER_ONLY = ("awq", "gptq", "auto-round")
"""Methods that work through the decoder's blocks: vision and audio towers are left alone."""

_SKIP_LISTS = (
    "modules_to_not_convert",
    "ignored_layers",
    "ignore",
    "exclude_modules",
    "llm_int8_skip_modules",
    "skip_modules",
)


def read_quantization(config: Mapping[str, Any]) -> CheckpointQuantization | None:
    """The quantization a config.json declares, or None if its weights are plain.

    Looks at the top level and in nested text configs. Raises BadConfig for a method whose bytes
    are not known, or one that lacks what its bytes depend on.
    """
    section = _section(config)
    if section is None:
        return None
    method = _method(section)
    if method not in READERS:
        raise BadConfig(f"quantized by {method!r}, a method whose bytes are not known", HINT)
    kept = rules_for(_skip_list(section), None)
    rules = READERS[method](section, config)
    if "quantized_layers" not in section:  # where it is, it names every module that is quantized
        rules = kept + rules
    formats = [rule.format for rule in rules if rule.format is not None]
    if not formats:
        raise BadConfig("quantization_config quantizes nothing that is known", HINT)
    lowest = min(formats, key=lambda f: f.bits)
    return CheckpointQuantization(
        method=method,
        bits=lowest.bits,
        group_size=lowest.tile_columns or None,
        ignored=tuple(rule.pattern for rule in kept),
        details=tuple((f"format {i}", f.name) for i, f in enumerate(dict.fromkeys(formats))),
        rules=tuple(rules),
        decoder_only=method in DECODER_ONLY,
    )


def _section(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    nested = (config.get(name) for name in ("text_config", "llm_config", "language_config"))
    for place in (config, *nested):
        if not isinstance(place, Mapping):
            continue
        for name in ("quantization_config", "compression_config"):
            found = place.get(name)
            if found is None or found == {}:
                continue
            if not isinstance(found, Mapping):
                raise BadConfig(f"config.json: {name} is not an object", HINT)
            return found
    return None


def _method(section: Mapping[str, Any]) -> str:
    method = section.get("quant_method")
    if method is None:
        if "quant_algo" in section:
            return "modelopt"
        if "config_groups" in section:
            return "compressed-tensors"
        if "load_in_4bit" in section or "load_in_8bit" in section:
            return "bitsandbytes"
        raise BadConfig("quantization_config names no quant_method", HINT)
    if not isinstance(method, str):
        raise BadConfig("quantization_config: quant_method is not a text", HINT)
    method = method.lower()
    return method.replace("_", "-") if method in ("compressed_tensors", "auto_round") else method


def _skip_list(section: Mapping[str, Any]) -> Sequence[object]:
    for name in _SKIP_LISTS:
        names = section.get(name)
        if names is None:
            continue
        if not isinstance(names, list):
            raise BadConfig(f"quantization_config: {name} is not a list", HINT)
        return names
    return ()
