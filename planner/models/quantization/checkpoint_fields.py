"""What every dialect of `quantization_config` needs: its checked numbers, and common rules."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import BadConfig
from ...formats.weight_format import MatrixFormat
from .module_rules import ModuleRule

HINT = "give the original, unquantized model, and choose w8 or w4 for it"

Section = Mapping[str, Any]


def whole(section: Section, name: str, default: int, choices: Sequence[int] = ()) -> int:
    """A whole number of `section`; `choices` are the values it may take, if given."""
    value = section.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value <= 2**20:
        raise BadConfig(f"quantization_config: {name} is {value!r}, not a whole number", HINT)
    if choices and value not in choices:
        raise BadConfig(f"quantization_config: {name} {value} is not known", HINT)
    return value


def all_modules(stored: MatrixFormat) -> list[ModuleRule]:
    return [ModuleRule(".*", stored)]


def experts(stored: MatrixFormat) -> list[ModuleRule]:
    """Routed experts, not the shared ones."""
    return [ModuleRule(r"(?:.*\.)?experts\..*", stored)]
