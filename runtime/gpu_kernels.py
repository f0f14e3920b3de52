"""The GPU kernels, where they can be had: asked here by every attention."""

import logging
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)


@cache
def gpu_kernels() -> Any:
    """The kernels, or None where Triton is not installed, with a warning."""
    try:
        from . import kernels
    except ImportError as error:
        logger.warning("attention runs on the slow reference: %s", error)
        return None
    return kernels
