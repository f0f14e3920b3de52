"""What the rows of the `verify` design say: errors, waste, and the bars.

out of memory   runs that did not stay within their budget, by torch's allocator or by the driver
total error     |predicted - measured| / measured, of what the device holds at its worst
waste           the planner keeps a margin for its own uncertainty. Where the next better point of
                the frontier would really have fit (its predicted total, corrected by this run's
                measured / predicted), waste is the part of the budget between the two; else 0.
"""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.engines import find_engine
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpus import Hardware
from kvpareto.planner.latency import predict as latency
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.units import GB
from kvpareto.planner.workload import Workload
from kvpareto.report.document_parts import point

from .real_shapes import spec_of
from .row_file import held

BARS = {"median": 0.01, "worst": 0.03}


def error(row: dict[str, Any]) -> float | None:
    """Signed: predicted beyond measured, as a part of measured."""
    measured = held(row)
    if not measured or row["outcome"] != "ok":
        return None
    return float(row["planned"]["memory"]["total"] / measured - 1)


def waste(row: dict[str, Any]) -> float | None:
    """The part of the budget that the next better point would have used; see above."""
    measured, execution = held(row), row.get("execution", {})
    if not measured or row["outcome"] != "ok":
        return None
    up = row["next_up"]
    if up is None:
        return 0.0
    really = up["memory"]["total"] * measured / row["planned"]["memory"]["total"]
    budget = execution["budget"]
    return max(0.0, (really - measured) / budget) if really <= budget else 0.0


def one_line(row: dict[str, Any]) -> str:
    execution, planned = row["execution"], row["planned"]
    text = f"{execution['config']} {execution['context']} in {execution['budget'] / GB:g} GB: "
    if row["outcome"] != "ok":
        return f"{text}{row['outcome']} {execution.get('term', '')}: {row['reason']}"
    off = error(row)
    text += f"total {(held(row) or 0) / GB:.3f} GB ({0 if off is None else off:+.2%}), "
    text += f"outside {execution.get('context_bytes', 0) / 1e6:.0f} MB, "
    text += f"TTFT {execution['ttft_s']:.3f} ({planned['ttft_s'] or 0:.3f}), "
    return text + f"TPOT {1e3 * execution['tpot_s']:.2f} ms ({1e3 * (planned['tpot_s'] or 0):.2f})"


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table by model, then the bars."""
    yield "| model | runs | out of memory | other | total error: median | worst | TTFT | TPOT |"
    yield "|---|---|---|---|---|---|---|---|"
    names = list(dict.fromkeys(row["model"] for row in rows))
    for name in [*names, None]:
        yield _line(name, [row for row in rows if name in (None, row["model"])])
    errors = sorted(abs(e) for row in rows if (e := error(row)) is not None)
    wasted = [w for row in rows if (w := waste(row)) is not None]
    lost = [row for row in rows if row["outcome"] != "ok"]
    out = [row for row in lost if row["outcome"] == "out_of_memory"]
    yield ""
    if errors:
        median, worst = statistics.median(errors), errors[-1]
        good = not out and median <= BARS["median"] and worst <= BARS["worst"]
        inside = sum(_inside(row) for row in rows if row["outcome"] == "ok")
        yield f"runs within their budget: {len(errors)}; out of memory: {len(out)}"
        yield f"total memory: median error {median:.2%}, worst {worst:.2%}; as planned {inside}"
        yield (
            f"waste: median {statistics.median(wasted):.1%}, mean {statistics.mean(wasted):.1%}, "
            f"most {max(wasted):.1%}, more than none in {sum(w > 0 for w in wasted)}"
        )
        yield f"bars (0 out of memory, median 1 %, worst 3 %): {'held' if good else 'MISSED'}"
    for row in lost:
        yield f"failed: {' '.join(map(str, row['key']))}: {row['outcome']}: {row['reason']}"


def _line(name: str | None, rows: Sequence[dict[str, Any]]) -> str:
    good = [row for row in rows if row["outcome"] == "ok"]
    memory = sum(row["outcome"] == "out_of_memory" for row in rows)
    errors = sorted(abs(e) for row in good if (e := error(row)) is not None)
    cells = [name or "**all**", str(len(rows)), str(memory), str(len(rows) - len(good) - memory)]
    cells += [f"{statistics.median(errors):.2%}", f"{errors[-1]:.2%}"] if errors else ["-", "-"]
    for key in ("ttft_s", "tpot_s"):
        off = [
            abs(row["planned"][key] / row["execution"][key] - 1)
            for row in good
            if row["planned"][key] and row["execution"].get(key)
        ]
        cells.append(f"{statistics.median(off):.0%}" if off else "-")
    return f"| {' | '.join(cells)} |"


def _inside(row: dict[str, Any]) -> bool:
    memory, measured = row["planned"]["memory"], held(row) or 0
    return bool(memory["total_low"] <= measured <= memory["total_high"])


def again(row: dict[str, Any], gpu: Hardware) -> dict[str, Any]:
    """The row with what the planner says of its configuration today."""
    if row["outcome"] != "ok":
        return row
    run = row["execution"]
    config, engine = Configuration.parse(run["config"]), find_engine(run["engine"])
    work = Workload(run["context"], run["output"], run["batch"])
    spec = spec_of(row["model"])
    planned = point(
        config,
        memory.estimate(spec, config, work, engine, gpu),
        accuracy.predict(spec, config, work.context),
        latency.predict(spec, config, work, engine, gpu),
    )
    return {**row, "planned": planned}
