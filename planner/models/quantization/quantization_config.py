"""How a checkpoint is already quantized: config.json's `quantization_config`, read to rules.

Each tool has its own dialect (checkpoint_formats, checkpoint_groups). What they come to is the
same: a list of rules, first match wins, that say in which MatrixFormat a linear layer or an expert
is stored, or that it was left alone. Tensors that are no matrix products (embeddings, norms,
routers, biases, convolutions) are never quantized by any of them, the output head only where a
rule names it; MLX quantizes embeddings, head and routers as well (checkpoint_mlx).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import BadConfig
from ..read_keys import ReadKeys
from ..spec import CheckpointQuantization, TensorGroup
from . import grouped_methods as groups
from . import methods as formats
from . import mlx as mlx
from .fields import Section, check_names, left_out, whole
from .methods import gptq_codes
from .module_rules import ModuleRule, rules_for
from .section import HINT, find_section, says_no

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
    "mlx": mlx.read_mlx,
}
DECODER_ONLY = ("awq", "gptq", "auto-round", "mlx")
"""Methods that work through the decoder's blocks: vision and audio towers are left alone."""
DEFAULTED = {
    "gptq": (("group_size",),),
    "auto-round": (("group_size",),),
    "awq": (("group_size", "q_group_size"),),
    "hqq": (("nbits",), ("group_size",)),
    "compressed-tensors": (("num_bits",),),
}
"""Fields that the bytes rest on and that each tool has a default for, each by all its names."""

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
    found = find_section(config)
    if found is None:
        return None
    section = ReadKeys(found)
    try:
        method, kept, rules = _rules(section, config)
    except BadConfig:
        check_names(section)  # what is missing may be there under another name
        raise
    check_names(section)
    defaulted = left_out(section, DEFAULTED.get(method, ()))
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
        every_matrix=method == "mlx",
        kv_cache=cache_scheme(section),
        defaulted=defaulted,
        gptq=gptq_codes(section, method),
    )


def _rules(section: Section, config: Section) -> tuple[str, list[ModuleRule], list[ModuleRule]]:
    """The method, rules of what is left alone, and the method's own. Raises BadConfig."""
    method = _method(section)
    if method not in READERS:
        raise BadConfig(f"quantized by {method!r}, a method whose bytes are not known", HINT)
    return method, rules_for(_skip_list(section), None), READERS[method](section, config)


def quantization_notes(
    config: Mapping[str, Any], quantization: CheckpointQuantization, tensors: Sequence[TensorGroup]
) -> list[str]:
    """What a reader of a plan should know of a quantized checkpoint."""
    notes = []
    stored = next((name for _, name in quantization.details), "")
    if quantization.defaulted:
        notes.append(
            f"quantization_config has no {' and no '.join(quantization.defaulted)}: taken as "
            f"{stored}, by its tool's default"
        )
    if quantization.kv_cache:
        notes.append(
            f"the checkpoint asks for a KV cache in {quantization.kv_cache}, for which it has "
            "scales: engines that follow it keep keys and values so; the KV bits here are the "
            "plan's own"
        )
    if quantization.method == "mlx":
        notes.append(
            "the checkpoint is MLX's, for Apple chips: bytes of weights are its own, other terms "
            "those of the engine named"
        )
        section = find_section(config) or {}
        unread = mlx.unread_modules(section, tensors)
        if unread:
            more = f" and {len(unread) - 3} more" * (len(unread) > 3)
            notes.append(
                "the checkpoint quantizes modules apart that this model is not read to have: "
                f"{', '.join(unread[:3])}{more}"
            )
    return notes


def cache_scheme(section: Mapping[str, Any]) -> str:
    """The format of the KV cache that a checkpoint was made for; empty where it names none.

    compressed-tensors' `kv_cache_scheme`, modelopt's `kv_cache_quant_algo`, which its older
    checkpoints call by the former name. Raises BadConfig for one that is no format.
    """
    scheme = section.get("kv_cache_scheme")
    if says_no(scheme):
        scheme = section.get("kv_cache_quant_algo")
        return "" if says_no(scheme) else str(scheme)[:40]
    if isinstance(scheme, str) and "quant_algo" in section:
        return scheme[:40]
    if not isinstance(scheme, Mapping):
        raise BadConfig("quantization_config: kv_cache_scheme is not an object", HINT)
    bits = whole(scheme, "num_bits", 8, (2, 3, 4, 6, 8, 16))
    kind = scheme.get("type", "int")
    if kind not in ("int", "float"):
        raise BadConfig(f"quantization_config: kv_cache_scheme of type {str(kind)[:40]!r}", HINT)
    strategy = str(scheme.get("strategy") or "tensor")[:40]
    return f"{'fp' if kind == 'float' else 'int'}{bits} per {strategy}"


def _method(section: Mapping[str, Any]) -> str:
    method = section.get("quant_method")
    if method is None:
        if "quant_algo" in section:
            return "modelopt"
        if "config_groups" in section:
            return "compressed-tensors"
        if "load_in_4bit" in section or "load_in_8bit" in section:
            return "bitsandbytes"
        if mlx.is_mlx(section):
            return "mlx"
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
