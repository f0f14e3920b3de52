"""Thousands of broken configs and arguments against the planner: what came of them, counted.

    python benchmarks/fuzz_plan.py [--cases 5000] [--seed 0] [--commands]

Without `--commands` a case goes to the planner's functions: read the config, estimate under every
engine. With it, it goes through the whole command line (`plan` and `estimate`), in this process.

Every case must be planned or refused with one line; anything else is printed with its seed, and
the exit code is 1. `make_case(seed)` in tests/support/fuzz_mutations.py gives the case again.
"""

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from tests.support.fuzz_mutations import TooSlow, command_outcome, make_case, outcome_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return _count(arguments, Path(folder))


def _count(arguments: argparse.Namespace, folder: Path) -> int:
    outcomes: Counter[str] = Counter()
    failures: dict[str, list[int]] = {}
    slowest = (0.0, -1)
    started = time.perf_counter()
    for seed in range(arguments.seed, arguments.seed + arguments.cases):
        before = time.perf_counter()
        try:
            case = make_case(seed)
            outcomes[command_outcome(case, folder) if arguments.commands else outcome_of(case)] += 1
        except (Exception, TooSlow) as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            if isinstance(error, TooSlow):
                frame = traceback.extract_tb(error.__traceback__)[-3]
            where = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {error}"
            failures.setdefault(where[:160], []).append(seed)
            outcomes["FAILED"] += 1
        slowest = max(slowest, (time.perf_counter() - before, seed))
    for outcome, count in outcomes.most_common():
        print(f"{count:6d}  {outcome}")
    print(f"{time.perf_counter() - started:.1f} s; slowest {slowest[0]:.2f} s (seed {slowest[1]})")
    for where, seeds in sorted(failures.items(), key=lambda item: -len(item[1])):
        print(f"{len(seeds):6d}  {where}  seeds {seeds[:5]}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
