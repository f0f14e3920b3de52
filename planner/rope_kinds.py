"""How a config stretches its rotary positions, and kinds of RoPE that nobody knows."""

from .errors import printable

STRETCHES = ("linear", "dynamic", "yarn", "longrope", "su", "llama3", "proportional")
"""Kinds of RoPE whose positions reach beyond those first trained (`su`: longrope's first name)."""
_BY_FACTOR = ("linear", "dynamic", "yarn", "llama3")
NOT_STRETCHED = ("default", "mrope")


def rope_warnings(config: dict[str, object]) -> tuple[str, ...]:
    """What a reader should know of a kind that transformers does not have, and of a factor that
    is missing or brings positions nearer."""
    kind, factor = _kind(config), _scaling(config).get("factor")
    if kind in _BY_FACTOR and factor is None:
        return (f"rope_scaling is {kind} and has no factor: transformers may not run it",)
    if kind in STRETCHES and isinstance(factor, int | float) and factor < 1:
        return (f"rope_scaling has factor {factor:g}, below 1: it shortens what it should stretch",)
    if kind in (*STRETCHES, *NOT_STRETCHED):
        return ()
    return (f"rope_type {printable(str(kind)[:40])!r} is not known: transformers may not run it",)


def stretched(config: dict[str, object]) -> dict[str, str]:
    """How the config stretches the positions of RoPE beyond those first trained, in words."""
    scaling, kind = _scaling(config), _kind(config)
    if not isinstance(kind, str) or kind not in STRETCHES:
        return {}
    factor, first = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    words = printable(kind[:40])
    words += f", factor {factor:g}" if isinstance(factor, int | float) else ""
    words += f", from {first:,} tokens" if isinstance(first, int) else ""
    return {"rope_scaling": words}


def _scaling(config: dict[str, object]) -> dict[str, object]:
    inner = config.get("text_config")
    fields = inner if isinstance(inner, dict) else config
    scaling = fields.get("rope_scaling") or fields.get("rope_parameters")
    return scaling if isinstance(scaling, dict) else {}


def _kind(config: dict[str, object]) -> object:
    scaling = _scaling(config)
    return scaling.get("rope_type") or scaling.get("type") or "default"
