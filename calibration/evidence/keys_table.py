"""What formats make of keys with outliers, and of the same without: docs/recall_model.md's table.

Cells of the shipped grid whose values lose nothing, so that keys are all that differs.
"""

from collections.abc import Sequence

from ..grid.reading import GridRun
from ..grid.variants import ITEMS
from .accuracy_tables import markdown_table

CONTEXT = 1024
MODELS = ("recall", "recall-outliers")
KINDS = {"retrieval": "needles", "reasoning": "variables, arithmetic"}
CELLS = {
    "w16a16-k4v8-pt+res128+pc256": "4 bits, one scale a tensor",
    "w4a16-k4v8-pb64+pc256": "4 bits, tiles of 64 tokens",
    "w16a16-k4v16+smooth+pc256": "4 bits, per token, smoothed",
    "w16a16-k4v16+rot+res128": "rotated",
    "w16a16-k4v8-pb64-g32+smooth+rot+res128": "tiles, smoothed and rotated",
    "w16a16-k4v16-kc128": "4 bits, per channel",
    "w16a16-k2v8+pc256": "2 bits, per token",
    "w16a16-k2v8-kc+res128": "2 bits, per channel",
}


def keys_table(runs: Sequence[GridRun]) -> str:
    """A line for each of CELLS: retention by model and task."""
    found = {(run.model, str(run.config)): run for run in runs if run.context == CONTEXT}
    header = ["keys", "configuration"]
    header += [f"{model}: {task}" for model in MODELS for task in KINDS.values()]
    body: list[list[object]] = []
    worst = 0.0
    for config, words in CELLS.items():
        kept = [found[model, config].kinds[kind] for model in MODELS for kind in KINDS]
        worst = max(worst, *(one.sd for one in kept))
        body.append([words, f"`{config}`", *(min(one.retention, 1.0) for one in kept)])
    return (
        f"{markdown_table(header, body)}\n\nRetention at {CONTEXT:,} tokens, {ITEMS} items a task, "
        f"sampling error at most {worst:.3f}."
    )
