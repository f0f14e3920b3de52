"""The ground truth: a grid of configurations of one model, measured by the runtime itself.

    python -m kvpareto.calibration.grid --model recall --out rows.jsonl    # measures, on a GPU
    python -m kvpareto.calibration.grid.evaluate                           # judges the fit on it

A calibration buys few runs and infers the rest; what it is judged on is a grid in which the rest
was measured too. `design` says which configurations and in which order, `variants`, `items` and
`score` what a run is, `worker` and `runner` how hundreds of runs go through one GPU in minutes,
`reading` what comes out. `spread` measures candidates of any model as a calibration does.
"""

DOOR = (
    "held_out",
    "items",
    "reading",
    "score",
    "spread",
    "variants",
    "worker",
)
"""Modules that other rooms may import."""
