"""kvpareto: plan, calibrate and verify quantized, chunked long-context inference.

    import kvpareto
    kvpareto.plan("Qwen/Qwen3-8B", gpu="4090")["recommended"]["config"]

Nothing heavy is imported here: `import kvpareto` must cost what Python costs. The functions of
api.py come with the first use of one.
"""

TYPE_CHECKING = False  # importing typing takes milliseconds in which Ctrl-C is not yet ours
if TYPE_CHECKING:
    from .api import (
        BadInput,
        Interrupted,
        KVParetoError,
        MissingDependency,
        NothingFits,
        calibrate,
        estimate,
        max_context,
        plan,
        profiles_check,
        profiles_export,
        profiles_import,
        profiles_list,
        profiles_show,
        run,
        run_batch,
        verify,
        write_report,
    )

__version__ = "0.1.0"
__all__ = [
    "BadInput",
    "Interrupted",
    "KVParetoError",
    "MissingDependency",
    "NothingFits",
    "__version__",
    "calibrate",
    "estimate",
    "max_context",
    "plan",
    "profiles_check",
    "profiles_export",
    "profiles_import",
    "profiles_list",
    "profiles_show",
    "run",
    "run_batch",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
