"""MLX checkpoints: `quantization` in config.json, with bits, group size and what modules differ.

    "quantization": {"group_size": 64, "bits": 4, "mode": "affine",
                     "model.layers.0.mlp.down_proj": {"group_size": 64, "bits": 8},
                     "lm_head": false}

mlx_lm writes it under `quantization`, newer versions under `quantization_config` too, without a
method. Every matrix is quantized whose inputs are a multiple of the group, embeddings and head
among them, unless its own entry says otherwise: codes packed into uint32 [out, in * bits / 32], and
for each group a scale and a bias in the checkpoint's dtype (mode affine: bits + 32 / group a
weight), or one scale byte (mxfp4, mxfp8, nvfp4). Norms, biases and convolutions stay. Towers are
counted in 16 bits: mlx_vlm leaves them, and where a converter did not, they are smaller.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import BadConfig
from ...formats.weight_format import MatrixFormat
from ..spec import TensorGroup
from .fields import Section, whole, word
from .module_rules import ModuleRule, canonical, rules_for
from .section import HINT

_SETTINGS = ("bits", "group_size", "mode")
_BLOCK_SCALED = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
_BITS = (2, 3, 4, 5, 6, 8)
_GROUPS = (16, 32, 64, 128)
_RAW_ROUTERS = ("deepseek_v", "glm4_moe", "glm_moe", "dots1", "kimi_k2")
"""Model types whose router is a bare tensor in mlx_lm, not a linear layer: it is left alone."""


def is_mlx(section: Section) -> bool:
    """Whether a section without another method has MLX's form."""
    return section.get("quant_method") in (None, "mlx") and "bits" in section and (
        "group_size" in section
    )  # fmt: skip


def read_mlx(section: Section, config: Section) -> list[ModuleRule]:
    """Modules with settings of their own, then all others.

    Raises BadConfig for modes, widths, groups and keys that are not known.
    """
    default = _format(section, section, config)
    rules: list[ModuleRule] = []
    of_fused: dict[str, tuple[str, MatrixFormat | None]] = {}
    for stored, names in _by_format(section, config, default).items():
        for name in names:
            for alias in _aliases(name):
                first, known = of_fused.setdefault(alias, (name, stored))
                if known != stored:
                    raise BadConfig(
                        f"quantization: {first} and {name} are one matrix here, stored in two ways",
                        HINT,
                    )
        rules += rules_for([alias for name in names for alias in _aliases(name)], stored)
    if _text(config, "model_type").startswith(_RAW_ROUTERS):
        rules += rules_for(["mlp.gate"], None)
    return [*rules, ModuleRule(".*", default)]


def unread_modules(section: Section, groups: Sequence[TensorGroup]) -> list[str]:
    """Modules that the file has settings for and that the model, as it is understood, has not."""
    known = {canonical(group.name.removesuffix(".weight"))[0] for group in groups}

    def is_known(name: str) -> bool:
        patterns = [rule.pattern for rule in rules_for(_aliases(name), None)]
        return any(re.fullmatch(pattern, one) for pattern in patterns for one in known)

    kinds = {canonical(name)[0]: name for name in _modules(section)}
    return [name for name in kinds.values() if not is_known(name)]


def _by_format(
    section: Section, config: Section, default: MatrixFormat
) -> dict[MatrixFormat | None, list[str]]:
    by_format: dict[MatrixFormat | None, list[str]] = {}
    for name, entry in _modules(section).items():
        stored: MatrixFormat | None
        if isinstance(entry, Mapping):
            stored = _format(entry, section, config)
        else:
            stored = default if entry else None
        by_format.setdefault(stored, []).append(name)
    return by_format


def _modules(section: Section) -> dict[str, Any]:
    """Modules with an entry: their settings, or whether they are quantized."""
    modules = {}
    for name, entry in section.items():
        if name in (*_SETTINGS, "quant_method"):
            continue
        if not isinstance(entry, Mapping | bool):
            raise BadConfig(f"MLX quantization: {name} {str(entry)[:40]!r} is not known", HINT)
        modules[name] = entry
    return modules


def _format(entry: Section, section: Section, config: Section) -> MatrixFormat:
    """What one entry says; what it leaves out is the whole file's."""
    mode = word({**section, **entry}, "mode", "affine", ("affine", *_BLOCK_SCALED))
    bits = whole({**section, **entry}, "bits", None, _BITS)
    group = whole({**section, **entry}, "group_size", None, _GROUPS)
    scale_bytes = 1
    if mode == "affine":
        scale_bytes = 2 * (4 if _text(config, "torch_dtype", "dtype") == "float32" else 2)
    elif (bits, group) != _BLOCK_SCALED[mode]:
        raise BadConfig(f"MLX quantization: {mode} with {bits} bits in groups of {group}", HINT)
    return MatrixFormat(
        f"MLX {mode} {bits}-bit, group {group}",
        bits=bits,
        tile_rows=1,
        tile_columns=group,
        scale_bytes=scale_bytes,
        word_bytes=4,
        input_multiple=group,
    )


def _aliases(name: str) -> list[str]:
    """The module as a ModelSpec names it: experts are stacked there, gate and up in one."""
    name = name.replace(".switch_mlp.", ".experts.")
    name = re.sub(r"\.gate\.(?:gate_proj|wg|weight)$", ".gate", name)
    fused = re.sub(r"\.experts\.(?:gate|up)_proj$", ".experts.gate_up_proj", name)
    return list(dict.fromkeys([name, fused]))


def _text(config: Section, *names: str) -> str:
    values = [config.get(name) for name in names]
    nested = config.get("text_config")
    if isinstance(nested, Mapping):
        values += [nested.get(name) for name in names]
    return next((v.removeprefix("torch.") for v in values if isinstance(v, str)), "")
