"""`python -m kvpareto.calibration.grid`: measure the grid."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ...planner.formats.configuration import Configuration
from .design import CONTEXTS, WEIGHTS
from .runner import GridPlan, JobRunner
from .variants import ITEMS


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="kvpareto.calibration.grid")
    parser.add_argument("--model", action="append", required=True, help="may be given again")
    parser.add_argument("--out", type=Path, required=True, help="rows are appended to this file")
    parser.add_argument("--contexts", default=",".join(map(str, CONTEXTS)))
    parser.add_argument("--configurations", type=int, default=400, help="unless time is up before")
    parser.add_argument("--weights", default=",".join(map(str, WEIGHTS)))
    parser.add_argument("--config", action="append", default=[], help="these alone; again")
    parser.add_argument("--workers", type=int, default=10, help="processes that share the GPU")
    parser.add_argument("--seconds", type=float, help="ends there, and keeps what is done")
    parser.add_argument("--items", type=int, default=ITEMS, help="of each task, a multiple of 256")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(arguments)
    plan = GridPlan(
        models=tuple(options.model),
        out=options.out,
        contexts=tuple(int(c) for c in options.contexts.split(",")),
        configurations=options.configurations,
        workers=options.workers,
        seconds=options.seconds,
        seed=options.seed,
        device=options.device,
        items=options.items,
        weights=tuple(int(w) for w in options.weights.split(",")),
        chosen=tuple(str(Configuration.parse(text)) for text in options.config),
    )
    added = JobRunner(plan).run()
    print(f"{added} runs added to {plan.out}", flush=True)


if __name__ == "__main__":
    main()
