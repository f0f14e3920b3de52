"""Fit the efficiencies of vLLM's steps to the runs of profiles/vllm, and say how right they are.

    python -m kvpareto.calibration.vllm.fit_speed            # errors, each model left out once
    python -m kvpareto.calibration.vllm.fit_speed --write    # and profiles/vllm/speed.json anew

Every efficiency has a prior (PRIORS, wide), so that what no run tells stays what the hardware says.
What is the plugin's own (PACKED; rows of benchmarks/vllm/plugin.py) is fitted after the rest, which
its rows do not move.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from ... import profiles
from ...planner.accuracy.formula import Floats
from ...planner.engines.vllm.step_time import efficiencies_of
from ..fit.least_squares import least_squares
from .timed_bursts import Seen, read_plugin_runs, read_runs

NOISE = 0.04
"""Of a time's logarithm: what two runs of one thing differ by."""
FIRM = 2.5
"""Deviations beyond which a run counts less (Huber)."""
PRIORS = {
    "matmul.bf16": (0.68, 0.2), "matmul.fp8": (0.6, 0.3), "matmul.int8": (0.6, 0.3),
    "weights.bf16": (0.85, 0.15), "weights.fp8": (0.8, 0.2), "weights.awq": (0.5, 0.4),
    "experts.bf16": (0.6, 0.4), "experts.fp8": (0.5, 0.5), "experts.mxfp4": (0.4, 0.6),
    "grouped": (0.7, 0.4), "attention.auto": (0.65, 0.2), "attention.fp8": (0.8, 0.3),
    "attention.scaled": (0.2, 0.7), "attention.int4": (0.05, 0.7), "cache.auto": (0.85, 0.2),
    "cache.fp8": (0.7, 0.3), "cache.scaled": (0.4, 0.5), "cache.int4": (0.2, 0.6),
    "states": (0.6, 0.5), "scan": (0.05, 0.7), "moved": (0.8, 0.3), "link": (0.8, 0.4),
    "layer": (2e-5, 0.6), "expert_layer": (1e-5, 0.8), "state_layer": (1e-5, 0.8),
    "exchange": (1e-5, 0.7), "step": (3e-4, 0.6), "host_step": (1.5e-3, 0.6),
    "host_user": (1.5e-5, 0.7), "host_layer": (1.5e-4, 0.6), "host_layer.scaled": (5e-4, 0.8),
    "host_layer.int4": (5e-4, 0.8), "host_layer.latent": (5e-4, 0.8), "request": (2e-3, 0.8),
    "attention.packed": (0.65, 0.3), "cache.packed": (0.75, 0.2), "cache.packed8": (0.75, 0.3),
    "host_layer.packed": (2e-4, 0.8),
}  # fmt: skip
"""A value and the deviation of its logarithm."""

PACKED = ("attention.packed", "cache.packed", "cache.packed8", "host_layer.packed")

KNOWN = "the rest"
ONCE = ("cache.int4", "cache.scaled", "cache.packed", "latent")
"""What one model or two were run with: classes with intervals of their own."""
LEAST, LEAST_ONCE = (0.85, 1.2), (0.6, 1.7)
"""Six models say little of how far a seventh may be; one model less of a second."""

Errors = dict[tuple[str, str], list[float]]
"""By (shape, what)."""


def fit(runs: Sequence[Seen], known: Mapping[str, float] | None = None) -> dict[str, float]:
    """The efficiencies that make these times most likely; `known` ones stay as they are."""
    known = {name: PRIORS[name][0] for name in PACKED} if known is None else known
    names = [name for name in PRIORS if name not in known]
    centre = np.log([PRIORS[name][0] for name in names])
    spread = np.array([PRIORS[name][1] for name in names])
    measured = np.log([seen.seconds for seen in runs])

    def logs(x: Floats) -> Floats:
        rates = dict(known) | dict(zip(names, np.exp(centre + spread * x), strict=True))
        return np.log([seen.predicted(rates) for seen in runs]) - measured

    def residuals(x: Floats) -> Floats:
        off = logs(x) / NOISE
        far = np.maximum(np.abs(off), FIRM)
        firm = np.where(np.abs(off) <= FIRM, off, np.sign(off) * np.sqrt(2 * FIRM * far - FIRM**2))
        return np.concatenate([firm, x])

    def slopes(x: Floats) -> Floats:
        step = 1e-4
        base = residuals(x)
        return np.stack(
            [(residuals(x + step * row) - base) / step for row in np.eye(len(x))], axis=1
        )

    found = least_squares(residuals, slopes, np.zeros(len(names)))
    fitted = dict(zip(names, map(float, np.exp(centre + spread * found)), strict=True))
    return {name: fitted[name] if name in fitted else known[name] for name in PRIORS}


def fit_packed(runs: Sequence[Seen], rates: Mapping[str, float]) -> dict[str, float]:
    """`rates`, and what is the plugin's own beside them, by its `runs`."""
    return fit(runs, {name: rate for name, rate in rates.items() if name not in PACKED})


def packed_left_out(runs: Sequence[Seen], rates: Mapping[str, float]) -> list[float]:
    """Errors of each model's plugin runs by those of the others; signed, relative."""
    found = []
    for shape in sorted({seen.shape for seen in runs}):
        told = fit_packed([seen for seen in runs if seen.shape != shape], rates)
        own = errors([seen for seen in runs if seen.shape == shape], told)
        found += [off for offs in own.values() for off in offs]
    return found


def errors(runs: Sequence[Seen], rates: Mapping[str, float]) -> Errors:
    """Signed relative errors."""
    found = Errors()
    for seen in runs:
        off = seen.predicted(rates) / seen.seconds - 1
        found.setdefault((seen.shape, seen.what), []).append(off)
    return found


def class_of(seen: Seen) -> str:
    """Of ONCE, or KNOWN."""
    mine = efficiencies_of(seen.served)
    return next((name for name in ONCE if name in mine), KNOWN)


def intervals(classes: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Ends of measured / predicted of each class, by errors of models that were left out; those of
    few times further out, and none narrower than LEAST or LEAST_ONCE. `untried`: the hull of all of
    ONCE, since a format that no model was run with is as far off as these were."""
    found = {}
    for name, offs in classes.items():
        logs = -np.log1p(np.array(offs)) * (1 + 4 / len(offs))
        low, high = (float(np.exp(np.quantile(logs, q))) for q in (0.05, 0.95))
        least = LEAST if name == KNOWN else LEAST_ONCE
        found[name] = [round(min(low, least[0]), 3), round(max(high, least[1]), 3)]
    once = [found[name] for name in ONCE if name in found]
    if once:
        hull = [min(low for low, _ in once), max(high for _, high in once)]
        found["untried"] = hull
    return found


def leave_out(runs: Sequence[Seen], shape: str) -> tuple[Errors, Errors, dict[str, list[float]]]:
    """Errors of a model by the fit to the others: where these tell all its efficiencies, and where
    it alone has a format or a kind of layer; and all of them by class."""
    others = [seen for seen in runs if seen.shape != shape]
    told = set[str]().union(*(efficiencies_of(seen.served) for seen in others))
    rates = fit(others)
    own = [seen for seen in runs if seen.shape == shape]
    known = [efficiencies_of(seen.served) <= told for seen in own]
    classes: dict[str, list[float]] = {}
    for seen in own:
        off = seen.predicted(rates) / seen.seconds - 1
        classes.setdefault(class_of(seen), []).append(off)
    parts = [
        errors(
            [seen for seen, is_known in zip(own, known, strict=True) if is_known is wanted], rates
        )
        for wanted in (True, False)
    ]
    return parts[0], parts[1], classes


def main() -> None:
    """Fit, leave each model out, and print both; with --write, replace the profile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    runs = read_runs()
    packed = read_plugin_runs()
    rates = fit_packed(packed, fit(runs))
    print(f"{len(runs)} times of {len({r.shape for r in runs})} models")
    everything = _table("fitted", errors(runs, rates))
    left_out, alone = Errors(), Errors()
    classes: dict[str, list[float]] = {}
    for shape in sorted({seen.shape for seen in runs}):
        known, unknown, of_class = leave_out(runs, shape)
        left_out |= known
        alone |= unknown
        for name, offs in of_class.items():
            classes.setdefault(name, []).extend(offs)
    held = _table("left out", left_out)
    if alone:
        _table("left out, with a format or a kind of layer that no other has", alone)
    classes["cache.packed"] = packed_left_out(packed, rates)
    ends = intervals(classes)
    print("measured / predicted while left out, by class: times, median error, interval, held")
    for name, offs in classes.items():
        (low, high), ratios = ends[name], 1 / (1 + np.array(offs))
        inside = np.mean((ratios >= low) & (ratios <= high))
        middle = 100 * float(np.median(np.abs(offs)))
        print(f"  {name:14} {len(offs):3}  {middle:5.1f} %  {low} to {high}  {inside:.0%}")
    _table("the plugin's, fitted", errors(packed, rates))
    if not write:
        return
    path = Path(profiles.__file__).parent / "vllm" / "speed.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["there"] = ends.pop(KNOWN)
    document["untried"] = ends.pop("untried")
    # whole models were not run in 8 bits; the kernel was, and prompts are staged alike
    document["once"] = ends | {"cache.packed8": ends["cache.packed"]}
    document["rates"] = {name: float(f"{value:.4g}") for name, value in rates.items()}
    document["errors"] = {
        "times": len(runs),
        "fitted_median": round(float(np.median(np.abs(everything))), 4),
        "left_out_median": round(float(np.median(np.abs(held))), 4),
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _table(title: str, found: Errors) -> Floats:
    """Print medians and the worst of each; all of them together."""
    every = np.array([off for offs in found.values() for off in offs])
    print(f"{title}: median {100 * median(abs(every)):.1f} %, worst {100 * max(abs(every)):.0f} %")
    for what in ("ttft", "tpot", "total"):
        offs = [abs(off) for (_, of), group in found.items() if of == what for off in group]
        print(f"  {'all':10} {what:6} {len(offs):3}  {100 * median(offs):5.1f} %")
    for (shape, what), offs in sorted(found.items()):
        middle, worst = 100 * median(map(abs, offs)), 100 * max(offs, key=abs)
        print(f"  {shape:10} {what:6} {len(offs):3}  {middle:5.1f} %  worst {worst:+.0f} %")
    return every


if __name__ == "__main__":
    main()
