"""A configuration run by transformers with attention written out in Python."""

from ....planner.formats.configuration import Configuration
from ....planner.workload import Workload
from ..loaded_model import OpenModel
from .transformers import TransformersMachine


def start(
    opened: OpenModel, config: Configuration, workload: Workload, target: int | None
) -> TransformersMachine:
    """See engines.start."""
    return TransformersMachine(opened, config, "eager")
