"""A hundred plans, each run for real under its budget as a hard cap: does what was promised hold?

    python benchmarks/verify_many.py verify_h200.jsonl --seconds 330
    python benchmarks/verify_many.py --plan-only                the plans, with predicted seconds
    python benchmarks/verify_many.py verify_h200.jsonl --summary [--again]

Random weights at real shapes; the questions are in verify_design.py. Models are built once for each
number of weight bits, and blocks come in passes over the models, so that a run cut short has seen
them all. Every run is `calibration.execution`'s, a short warm-up first. Rows are appended with
fsync as they come, failures with their cause; a file that is there is gone on with.

What the summary says:
  out of memory   runs that did not stay within their budget, by torch's allocator or by the driver
  total error     |predicted - measured| / measured, of what the device holds at its worst
  waste           the planner keeps a margin for its own uncertainty. Where the next better point of
                  the frontier would really have fit (its predicted total, corrected by this run's
                  measured / predicted), waste is the part of the budget between the two; else 0.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from measure_runs import compile_ahead, sources
from run_design import Block, Run
from verify_design import Case, cases, spec_of

from kvpareto.calibration.device_memory import memory_of, numbered, prefer_expandable_segments
from kvpareto.calibration.execution import warm_tokens
from kvpareto.planner import accuracy, latency, memory
from kvpareto.planner.configuration import Configuration
from kvpareto.planner.hardware import Hardware, find_gpu
from kvpareto.planner.units import GB
from kvpareto.planner.workload import Engine, Workload
from kvpareto.report.document import point

RUN_S, BUILD_S = 0.7, 0.6  # seconds beside the predicted ones, and of a build
RESTARTS = "KVPARETO_VERIFY_RESTARTED"
MOST_RESTARTS = 3
LONG_S = 3.0
BARS = {"median": 0.01, "worst": 0.03}


@dataclass(frozen=True)
class Group:
    """Cases of one model at one number of weight bits."""

    model: str
    weight_bits: int
    cases: tuple[Case, ...]


def groups(found: Sequence[Case]) -> list[Group]:
    """In passes: every model's largest group, then every model's next; what takes LONG_S seconds
    or more comes after all that does not."""
    by_model: dict[str, dict[int, list[Case]]] = {}
    last: list[Case] = []
    for case in found:
        if case.config is not None and expected_seconds(case) < LONG_S:
            bits = case.config.weight_bits
            by_model.setdefault(case.model, {}).setdefault(bits, []).append(case)
        elif case.config is not None:
            last.append(case)
    passes: list[list[Group]] = []
    for model, table in by_model.items():
        largest = sorted(table.items(), key=lambda item: -len(item[1]))
        for number, (bits, members) in enumerate(largest):
            if number == len(passes):
                passes.append([])
            members.sort(key=lambda case: case.context)
            passes[number].append(Group(model, bits, tuple(members)))
    last.sort(key=expected_seconds)
    long = [Group(c.model, c.config.weight_bits, (c,)) for c in last if c.config is not None]
    return [*(group for groups in passes for group in groups), *long]


# --- running --------------------------------------------------------------------------------------


class Rows:
    """The file of rows: what it has, and appending to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = read(path)
        self.done = {tuple(row["key"]) for row in self.rows}

    def append(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
        self.done.add(tuple(row["key"]))


class Useless(Exception):
    """The device takes no more calls from this process."""


def run_all(found: Sequence[Case], rows: Rows, options: argparse.Namespace) -> None:
    """Run what `rows` lacks, as far as the seconds go."""
    from kvpareto.calibration.open_model import open_model

    began = time.monotonic()
    for case in found:
        if case.config is None and case.key not in rows.done:
            rows.append({"key": case.key, "model": case.model, "outcome": "nothing fits",
                         "reason": case.reason})  # fmt: skip
    wanted = groups([case for case in found if case.key not in rows.done])
    with sources(wanted) as where:  # type: ignore[arg-type]
        if options.device == "cuda":
            device = memory_of(numbered("cuda"))
            print(f"outside the allocator: {device.context()} bytes, of others {device.others}")
            compile_ahead(kernel_blocks(wanted), {g.model: spec_of(g.model) for g in wanted})
            print(
                f"kernels compiled: {time.monotonic() - began:.1f} s; outside {device.context()}",
                flush=True,
            )
        for group in wanted:
            if time.monotonic() - began > options.seconds:
                break
            try:
                with open_model(
                    where[group.model], group.weight_bits, device=options.device,
                    random_weights=True, offline=True,
                ) as opened:  # fmt: skip
                    print(f"{group.model} w{group.weight_bits}: {opened.seconds:.1f} s", flush=True)
                    for case in group.cases:
                        left = options.seconds - (time.monotonic() - began)
                        if expected_seconds(case) < left:
                            run_one(opened, case, rows, options.commit)
            except Useless:
                raise
            except Exception as error:
                print(f"{group.model} w{group.weight_bits} cannot run: {error!r:.300}", flush=True)
    print(f"{len(rows.done)} rows in {time.monotonic() - began:.0f} s", flush=True)


def run_one(opened: Any, case: Case, rows: Rows, commit: str | None) -> None:
    from kvpareto.calibration.execution import Warmup, execute

    began = time.monotonic()
    assert case.config is not None
    found = execute(
        opened, case.config, case.workload, engine=case.engine, budget=case.budget,
        warmup=Warmup.SHORT,
    )  # fmt: skip
    row = {
        "key": case.key,
        "model": case.model,
        "objective": case.objective,
        "planned": case.planned,
        "next_up": case.next_up,
        "execution": found.model_dump(mode="json", by_alias=True, exclude_none=True),
        "outcome": found.outcome,
        "reason": found.reason,
    }
    row["execution"]["environment"] |= {"commit": commit} if commit else {}
    rows.append(row)
    took = time.monotonic() - began
    print(f"  {one_line(row)}; {took:.1f} s", flush=True)
    if found.outcome == "crashed" and "CUDA error" in (found.reason or ""):
        raise Useless


def expected_seconds(case: Case) -> float:
    """The run itself, its warm-up, and what a run takes beside them."""
    assert case.config is not None
    planned = case.planned or {}
    ttft, tpot = planned.get("ttft_s") or 0.0, planned.get("tpot_s") or 0.0
    warm = warm_tokens(spec_of(case.model), case.config, case.context) / case.context
    return RUN_S + (1 + 0.6 * warm) * ttft + case.workload.output * tpot


def kernel_blocks(wanted: Sequence[Group]) -> list[Block]:
    """Every format of every layer, without protection, which compile_ahead takes no account of."""
    blocks = []
    for group in wanted:
        runs = []
        for case in group.cases:
            if case.config is None or case.engine is not Engine.KVPARETO:
                continue
            config, kept = case.config, case.config.protection
            bits = {(config.k_bits, config.v_bits), *([(kept.k_bits, kept.v_bits)] if kept else [])}
            for k, v in bits:
                plain = replace(config, k_bits=k, v_bits=v, protection=None)
                runs.append(Run(plain, case.workload))
        blocks.append(Block(group.model, group.weight_bits, tuple(runs)))
    return blocks


# --- saying ---------------------------------------------------------------------------------------


def read(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def total(row: dict[str, Any]) -> int | None:
    found = row.get("execution", {})
    measured: int | None = found.get("device_used", found.get("counted"))
    return measured


def error(row: dict[str, Any]) -> float | None:
    """Signed: predicted beyond measured, as a part of measured."""
    measured = total(row)
    if not measured or row["outcome"] != "ok":
        return None
    return float(row["planned"]["memory"]["total"] / measured - 1)


def waste(row: dict[str, Any]) -> float | None:
    """The part of the budget that the next better point would have used; see above."""
    measured, found = total(row), row.get("execution", {})
    if not measured or row["outcome"] != "ok":
        return None
    up = row["next_up"]
    if up is None:
        return 0.0
    really = up["memory"]["total"] * measured / row["planned"]["memory"]["total"]
    budget = found["budget"]
    return max(0.0, (really - measured) / budget) if really <= budget else 0.0


def one_line(row: dict[str, Any]) -> str:
    found, planned = row["execution"], row["planned"]
    text = f"{found['config']} {found['context']} in {found['budget'] / GB:g} GB: "
    if row["outcome"] != "ok":
        return f"{text}{row['outcome']} {found.get('term', '')}: {row['reason']}"
    off = error(row)
    text += f"total {(total(row) or 0) / GB:.3f} GB ({0 if off is None else off:+.2%}), "
    text += f"outside {found.get('context_bytes', 0) / 1e6:.0f} MB, "
    text += f"TTFT {found['ttft_s']:.3f} ({planned['ttft_s'] or 0:.3f}), "
    return text + f"TPOT {1e3 * found['tpot_s']:.2f} ms ({1e3 * (planned['tpot_s'] or 0):.2f})"


def summary(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
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
    memory, measured = row["planned"]["memory"], total(row) or 0
    return bool(memory["total_low"] <= measured <= memory["total_high"])


def again(row: dict[str, Any], gpu: Hardware) -> dict[str, Any]:
    """The row with what the planner says of its configuration today."""
    if row["outcome"] != "ok":
        return row
    run = row["execution"]
    config, engine = Configuration.parse(run["config"]), Engine.parse(run["engine"])
    work = Workload(run["context"], run["output"], run["batch"])
    spec = spec_of(row["model"])
    planned = point(
        config,
        memory.estimate(spec, config, work, engine, gpu),
        accuracy.predict(spec, config, work.context),
        latency.predict(spec, config, work, engine, gpu),
    )
    return {**row, "planned": planned}


def show(found: Sequence[Case]) -> None:
    """Every plan in the order it is run, with its predicted seconds, and their sum."""
    seconds = 0.0
    for group in groups(found):
        seconds += BUILD_S
        for case in group.cases:
            seconds += expected_seconds(case)
            assert case.planned is not None
            size = case.planned["memory"]["total"] / GB
            print(
                f"{seconds:6.0f} s  {case.model.split('/')[-1]} {case.engine} {case.objective} "
                f"{case.budget / GB:g} GB, {case.context}: {case.config}, {size:.2f} GB"
            )
    none = [case for case in found if case.config is None]
    print(f"{len(found) - len(none)} plans, about {seconds:.0f} s")
    for case in none:
        print(
            f"no plan for {case.model} in {case.budget / GB:g} GB at {case.context}: {case.reason}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after this long")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--gpu", default="H200", help="what the plans are made for")
    parser.add_argument("--commit", help="what is run, where git cannot say")
    parser.add_argument("--plan-only", action="store_true", help="print the plans")
    parser.add_argument("--plans", type=Path, help="plans made before, or where to write them")
    parser.add_argument("--summary", action="store_true", help="of the rows that are there")
    parser.add_argument("--again", action="store_true", help="with today's predictions")
    options = parser.parse_args()
    if options.summary:
        rows = read(options.output)
        if options.again:
            rows = [again(row, find_gpu(options.gpu)) for row in rows]
        print("\n".join(summary(rows)))
        return
    prefer_expandable_segments()
    began = time.monotonic()
    if options.plans is not None and options.plans.exists():
        found = [Case.of(row) for row in read(options.plans)]
        print(f"{len(found)} plans read from {options.plans}", flush=True)
    else:
        found = cases(options.gpu, options.only)
        print(f"{len(found)} questions planned in {time.monotonic() - began:.1f} s", flush=True)
    if options.plan_only or options.output is None:
        if options.plans is not None:
            options.plans.write_text("".join(json.dumps(case.row()) + "\n" for case in found))
        show(found)
        return
    file = Rows(options.output)
    try:
        run_all(found, file, options)
    except Useless:
        restarted = int(os.environ.get(RESTARTS, "0"))
        if restarted < MOST_RESTARTS:
            os.environ[RESTARTS] = str(restarted + 1)
            left = max(options.seconds - (time.monotonic() - began), 0.0)
            os.execv(sys.executable, [sys.executable, *sys.argv, "--seconds", str(left)])
        print("the device fails again and again", flush=True)
    print("\n".join(summary(file.rows)))


if __name__ == "__main__":
    main()
