"""Print what the planner makes of every model type in transformers' mappings.

    python benchmarks/coverage.py [--each] [--whole] [--write]

For each type of MODEL_FOR_CAUSAL_LM_MAPPING and MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, the class's
own defaults with few layers: exact (parameters group by group, caches at two lengths, on the meta
device), bounded, refused by name, or WRONG. Prints the counts; `--each` one line a type; `--whole`
takes the defaults as they are, with all layers (minutes); `--write`
writes tests/data/coverage.json, which the tests expect and docs/models.md quotes. Exits 1 if
anything is wrong.
"""

import argparse
import json
import logging
import os
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
FILE = ROOT / "tests" / "data" / "coverage.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--each", action="store_true", help="print one line for each type")
    parser.add_argument("--whole", action="store_true", help="all layers, not a few")
    parser.add_argument("--write", action="store_true", help=f"write {FILE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    import torch

    from tests.support.oracle.coverage_meta import (
        MAPPINGS,
        WRONG,
        all_types,
        answer_of,
        default_config,
        small_config,
    )

    torch.set_num_threads(1)
    verdicts: dict[str, dict[str, str]] = {mapping: {} for mapping in MAPPINGS}
    tally: Counter[tuple[str, str]] = Counter()
    for mapping, kind in all_types():
        configured = default_config if arguments.whole else small_config
        answer = answer_of(configured(mapping, kind))
        verdicts[mapping][kind] = answer.verdict
        tally[mapping, answer.verdict] += 1
        if arguments.each or answer.verdict == WRONG:
            print(f"{mapping} {kind}: {answer.verdict} {answer.reason[:160]}".rstrip(), flush=True)
    for (mapping, verdict), count in sorted(tally.items()):
        print(f"{count:4} {mapping} {verdict}")
    if arguments.write:
        FILE.write_text(json.dumps(verdicts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return int(any(verdict == WRONG for _, verdict in tally))


if __name__ == "__main__":
    sys.exit(main())
