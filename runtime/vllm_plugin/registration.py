"""Whether vLLM can have the backend here, and its registration: harmless where it cannot."""

import logging
from importlib import metadata

from .names import BACKEND, QUANTIZATION

VERSIONS = ("0.26",)  # of vLLM, whose pages and classes were read and run
_log = logging.getLogger("vllm.kvpareto")  # vLLM shows what goes to its own loggers


def register() -> None:
    """Register the backend as vLLM's CUSTOM one, and the quantization `kvpareto_awq`; where that
    cannot be, log the reason once."""
    reason = why_not()
    if reason is not None:
        _log.info("kvpareto's attention backend is not offered: %s.", reason)
        return
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    register_backend(AttentionBackendEnum.CUSTOM, BACKEND)
    from vllm.model_executor.layers.quantization import register_quantization_config

    from .quantization import PackedAwqChoice

    register_quantization_config(QUANTIZATION)(PackedAwqChoice)


def why_not() -> str | None:
    """Why the backend cannot be offered in this process; None where it can."""
    try:
        version = metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return "vLLM is not installed"
    if not version.startswith(tuple(f"{known}." for known in VERSIONS)):
        return f"it is written for vLLM {' and '.join(VERSIONS)}, this is {version}"
    from vllm.platforms import current_platform

    if not current_platform.is_cuda():
        return "it needs an NVIDIA GPU"
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    custom = AttentionBackendEnum.CUSTOM
    if custom.is_overridden() and custom.get_path() != BACKEND:
        return f"vLLM's CUSTOM backend is {custom.get_path()} already"
    return None
