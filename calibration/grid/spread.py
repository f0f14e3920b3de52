"""A spread of what a calibration may run, of any model, measured as `calibrate` measures it.

    python -m kvpareto.calibration.grid.spread ./model --name ID --out rows.jsonl [--part 0/4]

The shipped grids of pretrained models have another text and other tasks than a calibration. Here
runs are drawn from its own candidates, each pair of key and value bits as often as any other, and
go through its own runner: so a calibration can be replayed on rows of its own kind
(calibration/evidence/replay.py). A file begins with a line of the model, of what file its weights
came from (`source.json` of a folder, where there is one), its environment and what the probe read;
a row for each configuration, context and task follows.
"""

import argparse
import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...planner.accuracy.calibrations import fingerprint
from ...planner.accuracy.key_noise.attention_noise import AttentionNoise
from ...planner.engines.kvpareto import KVPARETO
from ...planner.formats.configuration import Configuration
from ...planner.load_model import load_model
from ...planner.models.finite_json import read_json
from ...planner.models.spec import ModelSpec
from .. import tasks
from ..design.candidates import LONG, anchors, chunk_for, enumerate_candidates
from ..execution.device import as_loaded
from ..fit.accuracy_rows import AccuracyRow
from ..fit.profile import to_row
from ..measure.layer_sensitivity import Sensitivity
from ..records.record_file import LAYERS, Record

MOST = 400
WEIGHTS = (16, 4)
FOUR_BIT_WEIGHTS = 4
"""One configuration in so many has 4-bit weights."""
_ROW = ("config", "context", "task", "kind", "retention", "retention_sd")


@dataclass(frozen=True)
class Spread:
    """What was measured of a model: rows by configuration, whatever the chunk, and what formats
    make of its attention."""

    model: str
    rows: tuple[tuple[Configuration, AccuracyRow], ...]
    attention: AttentionNoise | None


def read_spread(path: Path, key: str) -> Spread:
    """The file of one model; its rows are named `key`."""
    head, *lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    probed = Record.model_validate(head["probe"])
    rows = []
    for line in lines:
        row = to_row(probed.model_copy(update=line), key)
        if row is not None:
            rows.append((Configuration.parse(line["config"]).with_chunk(None), row))
    sensitivity = Sensitivity.of([probed])
    assert sensitivity is not None  # the probe comes first
    return Spread(head["model"], tuple(rows), sensitivity.attention)


def lines_of(name: str, source: Any, records: Iterable[Record]) -> Iterator[str]:
    """The lines of a file: the probe, with the `source` of the weights, then what was measured."""
    for record in records:
        row: dict[str, Any]
        if record.task == LAYERS:
            probe = record.model_dump(mode="json", by_alias=True)
            probe["items"] = [float(f"{number:.3g}") for number in record.items]
            row = {"model": name, "source": source, "probe": probe}
        elif record.outcome == "ok":
            row = record.model_dump(mode="json", include=set(_ROW))
            for number in ("retention", "retention_sd"):
                row[number] = row[number] and float(f"{row[number]:.4g}")
        else:
            continue
        yield json.dumps(row, separators=(",", ":"))


def spread_of(spec: ModelSpec, context: int, probed: Sensitivity | None) -> list[Configuration]:
    """At most MOST candidates of a calibration: its anchors, then by turns of each pair of bits."""
    candidates, _ = enumerate_candidates(spec, context, WEIGHTS, probed)
    rng = random.Random(0)
    cells: dict[tuple[int, int, int], list[Configuration]] = {}
    for config in candidates:
        bits = config.weight_bits, config.k_bits, config.v_bits
        cells.setdefault(bits, []).append(config.with_chunk(None))
    for cell in cells.values():
        rng.shuffle(cell)
    chosen = anchors(WEIGHTS, None, LONG)[1:]
    plain = [bits for bits in sorted(cells) if bits[0] == 16]
    other = [bits for bits in sorted(cells) if bits[0] != 16]
    while len(chosen) < MOST and any(cells.values()):
        few = rng.sample(other, min(len(other), len(plain) // (FOUR_BIT_WEIGHTS - 1)))
        for bits in (*plain, *few):
            if cells[bits]:
                chosen.append(cells[bits].pop())
    return list(dict.fromkeys(chosen))[:MOST]


def measure(options: argparse.Namespace) -> int:
    """Run a part of the spread and write its rows; how many configurations were run."""
    from ..measure.bench import Bench  # here, since a replay reads without torch
    from ..measure.prompts import PromptTexts
    from ..measure.rows import ProfileIdentity
    from ..measure.runner import ConfigurationRunner
    from ..records.environment import environment

    begun, limit = time.monotonic(), options.seconds
    contexts = tuple(int(text) for text in options.context.split(","))
    spec = load_model(options.model, offline=True)
    spec = as_loaded(KVPARETO.dequantized(spec), options.device)
    asked = tuple(task.name for task in tasks.find(options.tasks.split(",")))
    material = PromptTexts(contexts, asked, options.items, seed=0)
    bench = Bench(options.model, spec, material, device=options.device, offline=True)
    identity = ProfileIdentity(options.name, fingerprint(spec), 0, environment(options.device))
    source = read_json(Path(options.model) / "source.json")
    records: list[Record] = []
    with options.out.open("w", encoding="utf-8") as file:

        def append(record: Record) -> None:
            records.append(record)
            for line in lines_of(options.name, source, [record]):
                print(line, file=file, flush=True)

        runner = ConfigurationRunner(
            bench, identity, records, append, items=options.items, notice=print
        )
        probed = runner.probe()
        part, parts = (int(text) for text in options.part.split("/"))
        chosen = [Configuration(), *spread_of(spec, max(contexts), probed)[part::parts]]
        done = 0
        while done < len(chosen) and (limit is None or time.monotonic() - begun < limit):
            for context in contexts:
                runner.run(chosen[done].with_chunk(chunk_for(context)), context)
            done += 1
    bench.close()
    return done


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="kvpareto.calibration.grid.spread")
    parser.add_argument("model", help="a folder with weights")
    parser.add_argument("--name", required=True, help="by which the rows are kept")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--context", default="1024,4096")
    parser.add_argument("--tasks", default="needle-multikey,variables,arithmetic")
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument(
        "--part", default="0/1", help="I/N: every Nth configuration from the Ith on"
    )
    parser.add_argument("--seconds", type=float, help="no configuration is begun after")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(arguments)
    print(f"{measure(options)} configurations in {options.out}")


if __name__ == "__main__":
    main()
