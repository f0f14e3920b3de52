"""The GPU kernels, where they can be had: asked here by every attention."""

import logging
from functools import cache
from typing import Any

from ..planner.libraries import import_failure

logger = logging.getLogger(__name__)


@cache
def gpu_kernels() -> Any:
    """The kernels, or None where Triton is missing or broken, with a warning."""
    try:
        from . import kernels
    except Exception as error:
        unusable = import_failure(error, "fast attention")
        if unusable is None:
            raise
        logger.warning("attention runs on the slow reference: %s", unusable.message)
        return None
    return kernels
