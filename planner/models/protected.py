"""Checks that the layers which a configuration protects exist in the model.

A configuration is read without a model, so it can name any layer; a layer that is not there would
be protected in words only.
"""

from ..errors import BadInput
from ..formats.configuration import Configuration
from .spec import ModelSpec


def check_layers(config: Configuration, spec: ModelSpec) -> None:
    """Raise BadInput where `config` protects a layer that `spec` lacks."""
    if config.protection is None:
        return
    count = len(spec.layers)
    missing = [layer for layer in config.protection.layers if layer >= count]
    if missing:
        named = ", ".join(map(str, missing))
        raise BadInput(
            f"{config} protects layer{'s' * (len(missing) > 1)} {named}, which {spec.name} does "
            "not have",
            f"its layers are 0 to {count - 1}",
            {"layers": count, "missing_layers": missing},
        )
