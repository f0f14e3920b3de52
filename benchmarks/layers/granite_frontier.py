"""Granite 4, hybrid and of attention alone: what memory buys in speed, and in accuracy.

    python -m benchmarks.layers.granite_frontier --plot docs/granite4.svg

Memory and speed are those of runs at real shapes under the planner's upper end as a cap
(verify_layers.py --set frontier). Answers are those of a small model of Granite's hybrid layers
(calibration/recall_model/granite.py) and of the recall model, which has attention alone
(calibration.grid; others' rows by `--answers`): real shapes have random weights here, which answer
nothing. Both are printed as tables in Markdown. The picture needs matplotlib.
"""

import argparse
from pathlib import Path
from typing import Any

from kvpareto.calibration.grid.reading import GridRun, read_runs
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.workload import Workload

from ..measure.row_file import held, read
from .layer_cases import cases
from .layer_shapes import spec_of

PROFILES = Path(__file__).parents[2] / "profiles" / "calibrations"
RUNS = PROFILES / "granite4_h200.jsonl"
ANSWERS = PROFILES / "granite4_answers_h200.jsonl"
SMALL = {"granite-hybrid": "hybrid", "recall": "attention alone"}
"""Small models, and what they are made of; recall is the one that ships."""
COLOURS = {"granite-4.0-h-micro": "tab:blue", "granite-4.0-micro": "tab:orange",
           "granite-4.0-h-tiny": "tab:cyan", "granite-hybrid": "tab:blue",
           "recall": "tab:orange"}  # fmt: skip
STYLES = {"k16v16": "-", "k8v8": "--", "k4v4": ":"}


def frontier_rows() -> list[dict[str, Any]]:
    """The runs at real shapes that went well, in the order of the cases."""
    good = {tuple(r["key"]): r for r in read(RUNS) if r["outcome"] == "ok" and held(r) is not None}
    return [good[case.key] for case in cases("frontier") if case.key in good]


def frontier_table(rows: list[dict[str, Any]]) -> str:
    """A line for each run."""
    lines = [
        "| model | context | configuration | total | planned | KV and states | TTFT | TPOT |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        (model, text, context, _), run = row["key"], row["execution"]
        lines.append(
            f"| {model} | {context:,} | `{text}` | {run['device_used'] / 1e9:.2f} GB | "
            f"{row['predicted']['total'] / 1e9:.2f} GB | {run['kv'] / 1e9:.3f} GB | "
            f"{run['ttft_s']:.2f} s | {1e3 * run['tpot_s']:.2f} ms |"
        )
    return "\n".join(lines)


def answers_table(runs: list[GridRun]) -> str:
    """A line for each configuration that all have: what each small model keeps by kind of task."""
    kinds = sorted({kind for run in runs for kind in run.kinds})
    models = [model for model in SMALL if any(run.model == model for run in runs)]
    names = [f"{SMALL[model]}: {kind}" for model in models for kind in kinds]
    lines = [f"| configuration | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    of = {(str(run.config), run.model): run for run in runs}
    for text in dict.fromkeys(str(run.config) for run in runs):
        if not all((text, model) in of for model in models):
            continue
        cells = []
        for model in models:
            for kind in kinds:
                kept = of[text, model].kinds.get(kind)
                cells.append("-" if kept is None else f"{kept.retention:.3f} ± {kept.sd:.3f}")
        lines.append(f"| `{text}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def cache_share(model: str, text: str, context: int = 131_000) -> float:
    """Bytes of keys, values and states, as a part of those with 16-bit keys and values."""
    spec, work = spec_of(model), Workload(context, 24)
    sizes = [
        kv_bytes(spec, Configuration.parse(t), work, KVPARETO).total
        for t in (text, "w16a16-k16v16")
    ]
    return sizes[0] / sizes[1]


def draw(rows: list[dict[str, Any]], runs: list[GridRun], out: Path) -> None:
    """Memory and step by context at real shapes; what small models keep by the cache's bytes at
    real shapes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "kvpareto"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(12, 3.8))
    memory, step, kept = panels
    series: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        text = row["key"][1].rsplit("+pc", 1)[0]
        series.setdefault((row["key"][0], text), []).append(row)
    for (model, text), found in series.items():
        if len(found) < 2:
            continue
        found = sorted(found, key=lambda row: row["key"][2])
        style = next(s for mark, s in STYLES.items() if mark in text)
        for panel, of in (
            (memory, lambda r: r["device_used"] / 1e9),
            (step, lambda r: 1e3 * r["tpot_s"]),
        ):
            panel.plot(
                [row["key"][2] for row in found],
                [of(row["execution"]) for row in found],
                style,
                color=COLOURS[model],
                marker="o",
                ms=3,
                label=f"{model.removeprefix('granite-4.0-')} {text}",
            )
    memory.set(xscale="log", xlabel="context, tokens", ylabel="GB on the device", ylim=(0, None))
    step.set(xscale="log", xlabel="context, tokens", ylabel="ms a token", ylim=(0, None))
    memory.legend(fontsize=6)
    _draw_kept(kept, runs)
    for panel in panels:
        panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


def _draw_kept(kept: Any, runs: list[GridRun]) -> None:
    shapes = dict(zip(SMALL, ("granite-4.0-h-micro", "granite-4.0-micro"), strict=True))
    for model, real in shapes.items():
        points = [run for run in runs if run.model == model and run.config.weight_bits == 16]
        kept.scatter(
            [cache_share(real, str(run.config)) for run in points],
            [min(k.retention for k in run.kinds.values()) for run in points],
            s=14,
            color=COLOURS[model],
            label=model,
        )
    kept.set(
        xlabel="part of the 16-bit cache's bytes at 131,000",
        ylabel="weakest kind kept",
        ylim=(0, 1.05),
    )
    kept.legend(fontsize=7, loc="lower right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--answers", type=Path, default=ANSWERS, help="rows of calibration.grid")
    parser.add_argument("--plot", type=Path)
    chosen = parser.parse_args()
    rows = frontier_rows()
    runs = read_runs(chosen.answers)
    print(frontier_table(rows) + "\n\n" + answers_table(runs))
    if chosen.plot is not None:
        draw(rows, runs, chosen.plot)


if __name__ == "__main__":
    main()
