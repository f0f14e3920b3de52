"""Real inference under a configuration: packed KV cache, chunked prefill, 4-bit weights.

Needs the `runtime` extra (torch, transformers). Buffers are allocated from the planner's
formats, so what was predicted is what is allocated.

    from kvpareto.runtime import load
    with load("model-folder-or-hub-id", "w16a16-k4v4-g64+pc1024", context=32768) as session:
        print(session.generate("Once upon a time").text[0])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .generation.sampling import Sampling
    from .loading import load
    from .session import Session

__all__ = ["Sampling", "Session", "load"]


def __getattr__(name: str) -> Any:
    # On first use: importing a part of this package must not cost all of transformers.
    if name in __all__:
        from ..planner.libraries import importing

        with importing("the runtime", "runtime"):
            from .generation.sampling import Sampling
            from .loading import load
            from .session import Session
        return {"Sampling": Sampling, "Session": Session, "load": load}[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
