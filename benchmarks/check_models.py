"""Hold the planner's reading of configs to transformers: every config.json of a folder.

    python benchmarks/check_models.py profiles/models [--markdown]

For each file: parameters group by group against the model that transformers instantiates on the
meta device, and cache bytes at two prompt lengths against the caches it fills there. Prints a
table of exact / differing / not instantiable (and why); exits 1 if anything differs.
"""

import argparse
import json
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvpareto.planner.engines.transformers import TRANSFORMERS

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

LENGTHS = (300, 5001)


@dataclass(frozen=True)
class Row:
    """One config: what was found, in words."""

    name: str
    kind: str
    parameters: str
    cache: str
    total: int | None
    notes: int


def check(path: Path) -> Row | None:
    """Compare one config.json; None for a file that is not one."""
    from kvpareto.planner.errors import BadConfig
    from kvpareto.planner.models.read_config import read_model

    config = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict) or "model_type" not in config:
        return None
    kind = str(config["model_type"])
    try:
        spec = read_model(config, path.stem)
    except BadConfig as error:
        return Row(path.stem, kind, f"REFUSED: {error.message}", "-", None, 0)
    parameters, cache = _compare(config, spec)
    return Row(path.stem, kind, parameters, cache, spec.parameters, len(spec.warnings))


def _compare(config: dict[str, Any], spec: Any) -> tuple[str, str]:
    from tests.support.oracle_meta import hf_config, instantiate, parameter_groups

    try:
        model = instantiate(hf_config(config))
    except Exception as error:  # whatever keeps transformers from making it is the finding
        return f"not instantiable: {_short(error)}", "-"
    mine: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for group in spec.tensors:
        mine[group.name, group.shape] += group.count
    truth = parameter_groups(model)
    if dict(mine) == truth:
        return "exact", _cache(model, spec)
    wrong = sum(1 for key in {*mine, *truth} if mine.get(key, 0) != truth.get(key, 0))
    return f"DIFFERS in {wrong} groups", _cache(model, spec)


def _cache(model: Any, spec: Any) -> str:
    from kvpareto.planner.formats.configuration import Configuration
    from kvpareto.planner.memory.kv_cache import kv_bytes
    from kvpareto.planner.workload import Workload
    from tests.support.oracle_meta import cache_bytes, fill_cache

    for tokens in LENGTHS:
        try:
            held = cache_bytes(fill_cache(model, tokens))
        except Exception as error:
            return f"not runnable: {_short(error)}"
        planned = kv_bytes(spec, Configuration(), Workload(tokens, 0), TRANSFORMERS).total
        if planned != held:
            return f"DIFFERS at {tokens}: {planned} planned, {held} held"
    return "exact"


def _short(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 90 else text[:89] + "…"


def rows(folder: Path) -> Iterator[Row]:
    for path in sorted(folder.glob("*.json")):
        found = check(path)
        if found is not None:
            yield found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(1)
    tally: Counter[str] = Counter()
    bar = "| " if arguments.markdown else ""
    if arguments.markdown:
        print("| config | model_type | parameters | total | cache | notes |")
        print("|---|---|---|---|---|---|")
    for row in rows(arguments.folder):
        cells = (row.name, row.kind, row.parameters, f"{row.total or 0:,}", row.cache, row.notes)
        print(bar + " | ".join(map(str, cells)) + (" |" if bar else ""), flush=True)
        tally["parameters " + row.parameters.split(":")[0].split(" in ")[0]] += 1
        tally["cache " + row.cache.split(":")[0].split(" at ")[0]] += 1
    for what, count in sorted(tally.items()):
        print(f"{count:4} {what}", file=sys.stderr)
    return int(any(word in what for what in tally for word in ("DIFFERS", "REFUSED")))


if __name__ == "__main__":
    sys.exit(main())
