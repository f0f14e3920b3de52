"""How many runs find the frontier: the design's rule, random choice and the paper's sweep.

    python benchmarks/frontier_search.py [--seeds 20] [--plot docs/frontier.svg]

The measured grid (profiles/calibrations/recall_grid.jsonl) is the oracle: a search sees the
retention of what it has run, and picks for every level of memory the configuration it believes
best. Its error there is the retention it misses of the best one in the grid. The rule is
`calibration/design/next_run.py` as a calibration runs it; random choice is judged by the same
beliefs; the sweep goes as the paper does, first the group for a 4-bit cache, then the bits, and
believes what it has run. Retention below 0.5 counts as 0.5: nothing there is ever recommended.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kvpareto.calibration.design.candidates import place_of
from kvpareto.calibration.design.next_run import Candidates, Measurement, Posterior, choose, missed
from kvpareto.calibration.grid.reading import GridRun, read_runs
from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.accuracy.formula import Floats
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration, Granularity
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.workload import Workload

ROOT = Path(__file__).parents[1]
GRID = ROOT / "profiles" / "calibrations" / "recall_grid.jsonl"
MODEL = ROOT / "profiles" / "recall" / "recall"
CONTEXT_STEP = 0.1
"""Distance of contexts a doubling apart, in the units of `place_of`."""
SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)


@dataclass(frozen=True, eq=False)
class FrontierProblem:
    """The grid of one model: a frontier at each context, whose first configuration, the
    unquantized model, is known."""

    name: str
    configs: list[Configuration]
    contexts: list[int]
    truth: Floats
    sd: Floats
    candidates: Candidates

    @property
    def known(self) -> list[int]:
        return [i for i, config in enumerate(self.configs) if config == Configuration()]

    def measured(self, done: Sequence[int]) -> dict[int, Measurement]:
        return {i: Measurement(float(self.truth[i]), float(self.sd[i])) for i in done}

    def worst(self, believed: Floats) -> float:
        """The most that picking by `believed` misses at any level of memory at any context."""
        memory = self.candidates.memory
        return max(
            float(missed(memory[front], self.truth[front], believed[front]).max())
            for front in self.candidates.fronts()
        )


def problem(runs: Sequence[GridRun], model: str) -> FrontierProblem:
    own = [run for run in runs if run.model == model]
    contexts = sorted({run.context for run in own})
    points = [(Configuration(), context, 1.0, 0.001) for context in contexts]
    points += [
        (run.config, run.context, min(run.overall.retention, 1.0), run.overall.sd) for run in own
    ]
    spec = load_model(str(MODEL), offline=True)
    memory = [
        estimate(spec, c, Workload(context=n, output=0), KVPARETO, None).total_high
        for c, n, _, _ in points
    ]
    believed = [
        accuracy.average(accuracy.predict(spec, c, n, accuracy.published()))
        for c, n, _, _ in points
    ]
    columns = list(zip(*points, strict=True))
    return FrontierProblem(
        model,
        list(columns[0]),
        list(columns[1]),
        np.array(columns[2]),
        np.array(columns[3]),
        Candidates(
            memory=np.array(memory),
            place=np.array([[*place_of(c), CONTEXT_STEP * np.log2(n)] for c, n, _, _ in points]),
            retention=np.array([b.retention for b in believed]),
            low=np.array([b.low for b in believed]),
            high=np.array([b.high for b in believed]),
            front=np.array(columns[1]),
        ),
    )


def by_design(case: FrontierProblem, runs: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    return _search(case, runs, lambda beliefs, left: _index(choose(beliefs, rng).index, left, rng))


def at_random(case: FrontierProblem, runs: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    return _search(case, runs, lambda _, left: int(rng.choice(left)))


def by_sweep(case: FrontierProblem, runs: int, seed: int) -> list[float]:
    """Groups of 4-bit per-token caches first, then everything by bits, from many to few."""
    del seed

    def rank(i: int) -> tuple[object, ...]:
        c = case.configs[i]
        first = (c.k_bits, c.v_bits) == (4, 4) and c.granularity is Granularity.PER_TOKEN
        return not first, -c.weight_bits, -(c.k_bits + c.v_bits), -(c.group_size or 64), i

    order = sorted(set(range(len(case.configs))) - set(case.known), key=rank)
    errors = []
    for count in range(runs):
        believed = np.zeros(len(case.truth))
        done = [*case.known, *order[:count]]
        believed[done] = case.truth[done]
        errors.append(case.worst(believed))
    return errors


def _index(chosen: int | None, left: Sequence[int], rng: np.random.Generator) -> int:
    """The chosen run, or any where nothing is expected to matter any more."""
    return int(rng.choice(left)) if chosen is None else chosen


def _search(
    case: FrontierProblem, runs: int, pick: Callable[[Posterior, list[int]], int]
) -> list[Floats]:
    """The worst error after 0, 1, 2, … runs beside the unquantized model."""
    done, errors = case.known, []
    for _ in range(runs):
        beliefs = Posterior(case.candidates, case.measured(done))
        errors.append(case.worst(beliefs.retention))
        left = [i for i in range(len(case.configs)) if i not in done]
        done.append(pick(beliefs, left))
    return errors


METHODS = {"chosen": by_design, "at random": at_random, "the paper's sweep": by_sweep}


def curves(case: FrontierProblem, seeds: int, most: float) -> dict[str, Floats]:
    """Worst error over contexts and levels of memory, mean over the seeds, after 0, 1, … runs."""
    runs = int(most * len(case.configs)) + 1
    return {
        name: np.mean(
            [search(case, runs, s) for s in range(1 if search is by_sweep else seeds)], axis=0
        )
        for name, search in METHODS.items()
    }


def plot(path: Path, results: dict[str, tuple[int, dict[str, Floats]]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "kvpareto"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.5), sharex=True, sharey=True)
    for axis, (name, (count, lines)) in zip(axes.ravel(), results.items(), strict=True):
        for (label, line), style in zip(lines.items(), ("-", "--", ":"), strict=True):
            axis.plot(100 * np.arange(len(line)) / count, 100 * line, style, label=label)
        axis.axhline(1, color="grey", linewidth=0.5)
        axis.axvline(20, color="grey", linewidth=0.5)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(0, 15)
    axes[0].legend(fontsize=8)
    figure.supxlabel("runs, % of the grid", fontsize=9)
    figure.supylabel("worst error along the frontier, points", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--grid", type=Path, default=GRID)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    runs = read_runs(options.grid)
    results = {}
    print("| model | runs | method | " + " | ".join(f"{100 * s:.0f} %" for s in SHARES) + " |")
    print("| --- | ---: | --- |" + " ---: |" * len(SHARES))
    for model in sorted({run.model for run in runs}):
        case = problem(runs, model)
        count = len(case.configs)
        results[model] = count, curves(case, options.seeds, SHARES[-1])
        for name, line in results[model][1].items():
            cells = [f"{100 * line[int(s * count)]:.1f}" for s in SHARES]
            print(f"| {model} | {count} | {name} | " + " | ".join(cells) + " |", flush=True)
    if options.plot:
        plot(options.plot, results)


if __name__ == "__main__":
    main()
