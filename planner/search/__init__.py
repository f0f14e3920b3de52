"""From a question to a recommendation: enumerate, evaluate, Pareto frontier, choice, reasons."""

DOOR = (
    "choose",
    "enumerate",
    "evaluate",
    "gpu_memory",
    "max_context",
    "notes",
    "placed.questions",
    "placed.table",
    "recommend",
    "request",
    "sweep",
    "tie_breaking",
)
"""Modules that other rooms may import."""
