"""A configuration run by transformers with attention written out in Python."""

from ....planner.formats.configuration import Configuration
from ....planner.workload import Workload
from ..loaded_model import OpenModel
from .transformers import TransformersMachine, check

__all__ = ["check", "start"]


def start(
    opened: OpenModel, config: Configuration, workload: Workload, target: int | None
) -> TransformersMachine:
    """See engines.start."""
    check(opened.spec, config, workload, target, opened.device.type)
    return TransformersMachine(opened, config, "eager")
