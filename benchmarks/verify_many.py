"""A hundred plans, each run for real under its budget as a hard cap: does what was promised hold?

    python benchmarks/verify_many.py verify_h200.jsonl --seconds 330
    python benchmarks/verify_many.py --plan-only                the plans, with predicted seconds
    python benchmarks/verify_many.py verify_h200.jsonl --summary [--again]

Random weights at real shapes; the questions are in verify_design.py. Models are built once for each
number of weight bits, and blocks come in passes over the models, so that a run cut short has seen
them all. Every run is `calibration.execution`'s, a short warm-up first. Rows are appended with
fsync as they come, failures with their cause; a file that is there is gone on with.

What is made of the rows is in verify_summary.py.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evidence import RowFile, options, read, with_summary
from measure_runs import compile_ahead, sources
from run_design import Block, Run
from verify_design import Case, cases, spec_of
from verify_summary import again, one_line, summary

from kvpareto.calibration.execution.memory_cap import (
    memory_of,
    numbered,
    prefer_expandable_segments,
)
from kvpareto.calibration.execution.timing import warm_tokens
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.units import GB

RUN_S, BUILD_S = 0.7, 0.6  # seconds beside the predicted ones, and of a build
RESTARTS = "KVPARETO_VERIFY_RESTARTED"
MOST_RESTARTS = 3
LONG_S = 3.0


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


class Useless(Exception):
    """The device takes no more calls from this process."""


def run_all(found: Sequence[Case], rows: RowFile, options: argparse.Namespace) -> None:
    """Run what `rows` lacks, as far as the seconds go."""
    from kvpareto.calibration.execution.loaded_model import open_model

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


def run_one(opened: Any, case: Case, rows: RowFile, commit: str | None) -> None:
    from kvpareto.calibration.execution.run import execute
    from kvpareto.calibration.execution.run_record import Warmup

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
            if case.config is None or case.engine is not KVPARETO:
                continue
            config, kept = case.config, case.config.protection
            bits = {(config.k_bits, config.v_bits), *([(kept.k_bits, kept.v_bits)] if kept else [])}
            for k, v in bits:
                plain = replace(config, k_bits=k, v_bits=v, protection=None)
                runs.append(Run(plain, case.workload))
        blocks.append(Block(group.model, group.weight_bits, tuple(runs)))
    return blocks


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


def check_planner(found: Sequence[Case], gpu: str) -> None:
    """End where the plans are another planner's: they would tell nothing of this one."""
    for case in found:
        if case.config is None or case.planned is None:
            continue
        spec, card = spec_of(case.model), find_gpu(gpu)
        total = estimate(spec, case.config, case.workload, case.engine, card).total
        if total != case.planned["memory"]["total"]:
            raise SystemExit(
                f"error: {case.model} {case.config} was planned with "
                f"{case.planned['memory']['total']} bytes, and is {total} today\n"
                "hint: make the plans again with --plan-only"
            )


def main() -> None:
    parser = with_summary(options(__doc__))
    parser.add_argument("--plans", type=Path, help="written by --plan-only, read by a run")
    parser.add_argument("--again", action="store_true", help="with today's predictions")
    asked = parser.parse_args()
    if asked.summary:
        rows = read(asked.output)
        if asked.again:
            rows = [again(row, find_gpu(asked.gpu)) for row in rows]
        print("\n".join(summary(rows)))
        return
    prefer_expandable_segments()
    began = time.monotonic()
    planning = asked.plan_only or asked.output is None
    if asked.plans is not None and not planning:
        found = [Case.of(row) for row in read(asked.plans)]
        print(f"{len(found)} plans read from {asked.plans}", flush=True)
        check_planner(found, asked.gpu)
    else:
        found = cases(asked.gpu, asked.only)
        print(f"{len(found)} questions planned in {time.monotonic() - began:.1f} s", flush=True)
    if planning:
        if asked.plans is not None:
            asked.plans.write_text("".join(json.dumps(case.row()) + "\n" for case in found))
        show(found)
        return
    file = RowFile(asked.output)
    try:
        run_all(found, file, asked)
    except Useless:
        restarted = int(os.environ.get(RESTARTS, "0"))
        if restarted < MOST_RESTARTS:
            os.environ[RESTARTS] = str(restarted + 1)
            left = max(asked.seconds - (time.monotonic() - began), 0.0)
            os.execv(sys.executable, [sys.executable, *sys.argv, "--seconds", str(left)])
        print("the device fails again and again", flush=True)
    print("\n".join(summary(file.rows)))


if __name__ == "__main__":
    main()
