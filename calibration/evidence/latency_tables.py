"""Measured seconds beside predicted ones: tables of docs/latency.md and docs/latency_fit.md.

    python -m kvpareto.calibration.evidence.latency_tables --write

makes transformers on whole models (profiles/hardware/latency_h200_transformers.jsonl) row by row,
sixteen architectures cut to a few layers and whole models at lengths new to the process
(memory_, verify_ and paper_h200.jsonl) by their medians, and how many rows the intervals hold; then
our engine's whole runs, each model predicted by a fit without it, and the newest row by row.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...planner.engine import Engine
from ...planner.engines import find_engine
from ...planner.engines.kvpareto import KVPARETO
from ...planner.engines.transformers import TRANSFORMERS
from ...planner.engines.transformers_eager import TRANSFORMERS_EAGER
from ...planner.formats.configuration import Configuration
from ...planner.hardware.gpu_names import find_gpu
from ...planner.latency.efficiency import before_runs, shipped
from ...planner.latency.interval import profile_of
from ...planner.latency.model_class import CLASSES, LATENT, MIXTURE, PLAIN, RECURRENT_LAYERS
from ...planner.latency.predict import Latency, predict, with_interval
from ...planner.latency.roofline import seconds
from ...planner.load_model import load_model
from ...planner.models.spec import ModelSpec
from ...planner.workload import Workload
from ...profiles import read
from ..fit.hardware.engine_runs import RunRow, shipped_executions, shipped_runs
from ..fit.hardware.latency import FROM_KERNELS, LatencyFit, described, fit
from .left_out_errors import class_table
from .marked_tables import shown_lines, write_tables
from .memory_tables import spec_of

H200 = find_gpu("H200")
OUTPUT = 32  # tokens generated in every run of a whole model
_INT4 = Configuration(k_bits=4, v_bits=4, group_size=64)
_CACHES = {"dynamic": Configuration(), "quanto int4": _INT4, "hqq int4": _INT4}


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One measured run and what is predicted for it.

    `steady`: whether the time a token is a mean over steps like any other, and not over four
    steps of which the first chose its kernels.
    """

    model: str
    engine: Engine
    cache: str
    context: int
    chunk: int | None
    ttft_s: float
    tpot_s: float
    predicted: Latency
    steady: bool = True

    @property
    def ttft_ratio(self) -> float:
        """Measured / predicted."""
        return self.ttft_s / self.predicted.ttft_s

    @property
    def tpot_ratio(self) -> float:
        return self.tpot_s / self.predicted.tpot_s

    @property
    def held(self) -> tuple[bool, bool]:
        """Whether the intervals of TTFT and of TPOT hold what was measured."""
        p = self.predicted
        ttft = p.ttft_low <= self.ttft_s <= p.ttft_high
        return ttft, p.tpot_low <= self.tpot_s <= p.tpot_high


def whole_models() -> Iterator[LatencyRow]:
    """Llama-3.1-8B and Qwen2.5-3B to 131,072 tokens: what the coefficients were found on."""
    _, *lines = map(json.loads, read("hardware/latency_h200_transformers.jsonl").splitlines())
    for x in lines:
        spec, engine = load_model(x["model"], offline=True), find_engine(x["engine"])
        workload = Workload(x["context"], OUTPUT, full_logits=x["full_logits"])
        predicted = _predicted(spec, _CACHES[x["cache"]], x["chunk"], workload, engine)
        measured = x["context"], x["chunk"], x["ttft_s"], x["tpot_s"]
        yield LatencyRow(x["model"], engine, x["cache"], *measured, predicted)


def architectures() -> Iterator[LatencyRow]:
    """Sixteen architectures cut to 2 to 12 layers; the coefficients were not found on these."""
    for x in map(json.loads, read("calibrations/memory_h200.jsonl").splitlines()):
        if "ttft_s" not in x:
            continue
        sdpa = x["attention"] == "sdpa"
        engine = TRANSFORMERS if sdpa else TRANSFORMERS_EAGER
        workload = Workload(x["context"], x["steps"])
        predicted = _predicted(spec_of(x["model"]), Configuration(), x["chunk"], workload, engine)
        measured = x["context"], x["chunk"], x["ttft_s"], x["tpot_s"]
        steady = x["chunk"] is not None
        yield LatencyRow(x["model"], engine, "dynamic", *measured, predicted, steady)


def runtime_runs() -> Iterator[LatencyRow]:
    """The kvpareto engine on whole models, beside the shipped coefficients."""
    return _rows(shipped_runs(), KVPARETO)


def new_lengths(engine: Engine) -> Iterator[LatencyRow]:
    """transformers on the models that ours was verified on: lengths that the process, in nearly
    every run, had not met before."""
    return _rows(shipped_executions(engine), engine)


def _rows(runs: Sequence[RunRow], engine: Engine) -> Iterator[LatencyRow]:
    for run in runs:
        if run.ttft_s is None or run.tpot_s is None:
            continue
        config = run.config
        if engine is KVPARETO:  # without what the engine did not have then
            profile, job = profile_of(engine, H200, run.spec), described(run)
            swept = [seconds(job, H200, end.prompts, end.steps) for end in profile.ends]
            predicted = with_interval(profile.kind, swept, 0, 0, 0)
        else:
            predicted = _predicted(run.spec, config, config.chunk, run.workload, engine)
        measured = run.workload.context, config.chunk, run.ttft_s, run.tpot_s
        yield LatencyRow(run.model, engine, str(config), *measured, predicted)


def held_out_table(rows: Sequence[RunRow], fitted: LatencyFit) -> str:
    """Markdown: errors of each model's rows as a fit to the other models' predicts them."""
    errors = np.abs(np.expm1(-fitted.held_out.errors))
    inside = np.stack([fitted.held_out.held(which) for which in (0, 1)], axis=1)
    lines = [
        "| model | rows | TTFT: median | 90 % within | held | TPOT: median | 90 % within | held |",
        "|---|---|---|---|---|---|---|---|",
    ]
    models = np.array([row.model for row in rows])
    for model in [*dict.fromkeys(models.tolist()), "**all**"]:
        some = models == model if model != "**all**" else np.full(len(rows), True)
        cells = [model, str(int(some.sum()))]
        for which in (0, 1):
            timed = some & ~np.isnan(errors[:, which])
            if not timed.any():
                cells += ["-"] * 3
                continue
            column = errors[timed, which]
            cells += [f"{np.median(column):.1%}", f"{np.quantile(column, 0.9):.1%}"]
            cells += [f"{inside[timed, which].mean():.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def newest_table(rows: Sequence[RunRow]) -> str:
    """Markdown: rows of the newest kernels, milliseconds, beside the shipped coefficients."""
    lines = [
        "| model | configuration | sequences | TTFT ms | predicted | TPOT ms | predicted |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not row.has("ready_rows"):
            continue
        found = seconds(described(row), H200, shipped(KVPARETO))
        work = row.workload
        cells = [row.model.split("/")[-1], f"`{row.config}`", f"{work.batch} x {work.context:,}"]
        for measured, predicted, digits in (
            (row.ttft_s, found.ttft, 0),
            (row.tpot_s, found.tpot, 2),
        ):
            times = (measured, float(predicted.item())) if measured else ()
            cells += [f"{1e3 * time:,.{digits}f}" for time in times] or ["-"] * 2
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _predicted(
    spec: ModelSpec,
    config: Configuration,
    chunk: int | None,
    workload: Workload,
    engine: Engine,
) -> Latency:
    latency = predict(spec, config.with_chunk(chunk), workload, engine, H200)
    assert latency is not None
    return latency


def summary(name: str, some: Sequence[LatencyRow]) -> str:
    """One line of markdown: median measured / predicted, median error, share of rows held."""
    cells = [name, str(len(some))]
    for which, ratio in enumerate(("ttft_ratio", "tpot_ratio")):
        counted = [r for r in some if r.steady or which == 0]
        ratios = np.array([getattr(r, ratio) for r in counted])
        held = np.mean([r.held[which] for r in counted]) if counted else np.nan
        error = np.median(np.abs(1 / ratios - 1)) if counted else np.nan
        middle = np.median(ratios) if counted else np.nan
        cells += [f"{middle:.2f}", f"{error:.0%}", f"{held:.0%}"]
    return f"| {' | '.join(cells)} |"


def whole_table() -> str:
    """Markdown: transformers on whole models, row by row."""
    lines = [
        "| model | engine, cache | context | chunk | TTFT s | predicted | TPOT ms | predicted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in whole_models():
        p = row.predicted
        cells = (
            row.model.split("/")[1],
            f"{row.engine.name}, {row.cache}",
            f"{row.context:,}",
            row.chunk or "-",
            f"{row.ttft_s:.2f}",
            f"{p.ttft_s:.2f} ({1 / row.ttft_ratio - 1:+.0%})",
            f"{1e3 * row.tpot_s:.1f}",
            f"{1e3 * p.tpot_s:.1f} ({1 / row.tpot_ratio - 1:+.0%})",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def ratios_table() -> str:
    """Markdown: transformers by kind of run and by architecture, medians."""
    cut = list(architectures())
    lines = [
        "| | rows | TTFT ratio | error | held | TPOT ratio | error | held |",
        "|---|---|---|---|---|---|---|---|",
        summary("whole models, transformers", list(whole_models())),
    ]
    for engine in (TRANSFORMERS, TRANSFORMERS_EAGER):
        lines.append(summary(f"{engine.name}, lengths not met before", list(new_lengths(engine))))
    for model in dict.fromkeys(row.model for row in cut):
        lines.append(summary(model.split("/")[1], [row for row in cut if row.model == model]))
    return "\n".join([*lines, summary("all architectures", cut)])


def left_out_tables(rows: Sequence[RunRow], fitted: LatencyFit) -> dict[str, str]:
    """Of our engine's runs, each model predicted by a fit that did not see it: the tables by their
    names on the pages, of models and of classes."""
    return {
        "times_left_out": held_out_table(rows, fitted),
        "time_classes": class_table(fitted.held_out),
    }


def readme_line(docs: Path) -> str:
    """README's line of errors of seconds, by the table of classes as its page in `docs` has it."""
    rows, classes = shipped_runs(), shown_lines("time_classes", docs)
    first, then = classes["**all**"][3], classes["**all**"][6]
    plain = classes[CLASSES[PLAIN]]
    others = {"experts": MIXTURE, "latents": LATENT, "recurrent layers": RECURRENT_LAYERS}
    ttft = ", ".join(
        f"{word} {float(classes[CLASSES[name]][3][:-1]):.0f} %" for word, name in others.items()
    )
    cells = (
        "latency",
        f"an H200: {len(rows)} runs of {len({row.model for row in rows})} models of our engine, "
        f"{sum(1 for _ in whole_models())} of transformers",
        f"a model left out is predicted to {first.replace('%', ' %')} of TTFT and "
        f"{then.replace('%', ' %')} of TPOT at the median (attention alone {plain[3][:-1]} and "
        f"{plain[6].replace('%', ' %')}; of TTFT {ttft}); terms were chosen with these rows in "
        "sight; elsewhere a bound, and called one ([latency](docs/latency.md), "
        "[its fit](docs/latency_fit.md))",
    )
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="kvpareto.calibration.evidence.latency_tables")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/")
    options = parser.parse_args(arguments)
    rows = shipped_runs()
    fitted = fit(rows, H200, before_runs(KVPARETO), FROM_KERNELS, whole_classes=True)
    tables = {
        "transformers_times": whole_table(),
        "transformers_ratios": ratios_table(),
        **left_out_tables(rows, fitted),
        "newest_times": newest_table(rows),
    }
    print("\n\n".join(tables.values()))
    own = list(runtime_runs())
    ttft, tpot = (
        np.array([abs(1 / getattr(row, ratio) - 1) for row in own])
        for ratio in ("ttft_ratio", "tpot_ratio")
    )
    print(
        f"\nshipped coefficients on the {len(own)} runs they are fitted to: "
        f"TTFT {np.median(ttft):.1%}, TPOT {np.median(tpot):.1%} at the median; of TTFT "
        f"{np.mean(ttft <= 0.15):.0%} within 15 %, {np.mean(ttft <= 0.25):.0%} within 25 %"
    )
    if options.write:
        write_tables(tables)


if __name__ == "__main__":
    main()
