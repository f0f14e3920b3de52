"""The KV Pareto paper's table by measurement: its five models at 10k and 128k tokens.

    python benchmarks/paper_measured.py paper_h200.jsonl --seconds 180
    python benchmarks/paper_measured.py --plan-only          what is run, with predicted seconds
    python benchmarks/paper_measured.py paper_h200.jsonl --summary

For each model and context (random weights at real shapes, batch 1):

  baseline   transformers, W16 K16V16, one shot, SDPA, last token's logits
  eager      the same with eager attention, at 10k
  paper      the paper's frontier point (arXiv 2512.01953) on our runtime: its groups, its chunk
             of 256; at 128k a chunk of 1024, which it recommends there
  ours       what `plan --objective latency` recommends within the memory of the paper's point, for
             a loss no larger than is predicted of that

Totals are what the device holds at its worst. All of 10k comes first, then 128k, so that a run cut
short lacks the end of 128k. Rows are appended with fsync as they come; a file is gone on with.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evidence import RowFile, held, options, read, with_summary
from paper_table import PAPER
from verify_many import BUILD_S, RUN_S

from kvpareto.calibration.execution.memory_cap import prefer_expandable_segments
from kvpareto.planner.accuracy import predict as accuracy
from kvpareto.planner.engine import Engine
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.engines.transformers import TRANSFORMERS
from kvpareto.planner.engines.transformers_eager import TRANSFORMERS_EAGER
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpus import Hardware
from kvpareto.planner.latency import predict as latency
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory import estimate as memory
from kvpareto.planner.search.recommend import Request, recommend
from kvpareto.planner.units import GB
from kvpareto.planner.workload import Workload

CONTEXTS = (10_240, 131_072)
OUTPUT = 24
LONG_CHUNK = 1024
LONG_ORDER = (1, 3, 0, 2, 4)  # of PAPER's models, at 128k: Llamas first


@dataclass(frozen=True)
class Case:
    model: str
    context: int
    role: str
    engine: Engine
    config: Configuration
    ttft_s: float
    total: int
    """Predicted, like ttft_s."""

    @property
    def workload(self) -> Workload:
        return Workload(self.context, OUTPUT)

    @property
    def key(self) -> tuple[str, int, str]:
        return self.model, self.context, self.role


def cases(gpu: Hardware, only: str = "") -> list[Case]:
    """All cases in the order they are run; those of one model and weights stand together."""
    found = []
    for context in CONTEXTS:
        order = range(len(PAPER)) if context == CONTEXTS[0] else LONG_ORDER
        for model, text, _ in (PAPER[i] for i in order):
            if only.lower() in model.lower():
                found += _cases(model, text, context, gpu)
    return found


def _cases(model: str, text: str, context: int, gpu: Hardware) -> list[Case]:
    spec, work = load_model(model, offline=True), Workload(context, OUTPUT)

    def case(role: str, engine: Engine, config: Configuration) -> Case:
        seconds = latency.predict(spec, config, work, engine, gpu)
        size = memory.estimate(spec, config, work, engine, gpu).total
        assert seconds is not None
        return Case(model, context, role, engine, config, seconds.ttft_s, size)

    plain, paper = Configuration(), Configuration.parse(text)
    if context > CONTEXTS[0]:
        paper = paper.with_chunk(LONG_CHUNK)
    given = memory.estimate(spec, paper, work, KVPARETO, gpu).total_high
    loss = 1 - accuracy.predict(spec, paper, context).low
    asked = Request(spec, work, KVPARETO, given, gpu, max_loss=loss, objective="latency")
    ours = recommend(asked).recommended.config
    roles = [case("baseline", TRANSFORMERS, plain)]
    if context == CONTEXTS[0]:
        roles.append(case("eager", TRANSFORMERS_EAGER, plain))
    packed = [("paper", paper), ("ours", ours)]
    # stable: weights are built once for neighbours of the same bits
    packed.sort(key=lambda item: -item[1].weight_bits)
    return [*roles, *(case(role, KVPARETO, config) for role, config in packed)]


def run_all(found: Sequence[Case], rows: RowFile, options: argparse.Namespace) -> None:
    from kvpareto.calibration.execution.loaded_model import open_model
    from kvpareto.calibration.execution.run import execute
    from kvpareto.calibration.execution.run_record import Warmup

    began = time.monotonic()
    for model, bits, members in blocks([case for case in found if case.key not in rows.done]):
        left = options.seconds - (time.monotonic() - began)
        if left < BUILD_S + RUN_S:
            break
        try:
            with open_model(
                model, bits, device=options.device, random_weights=True, offline=True
            ) as opened:
                for case in members:
                    left = options.seconds - (time.monotonic() - began)
                    if RUN_S + 1.3 * case.ttft_s > left:
                        continue
                    run = execute(
                        opened, case.config, case.workload, engine=case.engine,
                        warmup=Warmup.SHORT,
                    )  # fmt: skip
                    row = {
                        "key": case.key,
                        "model": model,
                        "role": case.role,
                        "outcome": run.outcome,
                        "reason": run.reason,
                        "predicted": {"ttft_s": case.ttft_s, "total": case.total},
                        "execution": run.model_dump(mode="json", by_alias=True, exclude_none=True),
                    }
                    row["execution"]["environment"] |= (
                        {"commit": options.commit} if options.commit else {}
                    )
                    rows.append(row)
                    said = f"{(held(row) or 0) / GB:.2f} GB ({case.total / GB:.2f}), TTFT "
                    said += f"{run.ttft_s or 0:.2f} s ({case.ttft_s:.2f}) {run.reason or ''}"
                    print(
                        f"{model} {case.context} {case.role} {case.config}: {said}, "
                        f"after {time.monotonic() - began:.0f} s",
                        flush=True,
                    )
        except Exception as error:
            print(f"{model} w{bits} cannot be run: {error!r:.300}", flush=True)


def blocks(found: Sequence[Case]) -> Iterator[tuple[str, int, list[Case]]]:
    """Neighbours of one model and weights."""
    members: list[Case] = []
    for case in found:
        if members and _weights(members[0]) != _weights(case):
            yield *_weights(members[0]), members
            members = []
        members.append(case)
    if members:
        yield *_weights(members[0]), members


def _weights(case: Case) -> tuple[str, int]:
    return case.model, case.config.weight_bits


def summary(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line a configuration, each context's reductions against its baseline."""
    papers = {model: reduction for model, _, reduction in PAPER}
    found = {tuple(row["key"]): row for row in rows if row["outcome"] == "ok"}
    yield "| model | context | | configuration | total | of baseline | TTFT | TPOT |"
    yield "|---|---|---|---|---|---|---|---|"
    for (model, context, role), row in found.items():
        run, base = row["execution"], found.get((model, context, "baseline"))
        change = "-"
        if base is not None and role not in ("baseline",):
            change = f"{(held(row) or 0) / (held(base) or 1) - 1:+.0%}"
        name = f"paper (-{papers[model]} % at 10k)" if role == "paper" else role
        tpot = f"{1e3 * run['tpot_s']:.1f} ms" if run.get("tpot_s") else "-"
        yield (
            f"| {model.split('/')[-1]} | {context:,} | {name} | `{run['config']}` "
            f"| {(held(row) or 0) / GB:.2f} GB | {change} | {run['ttft_s']:.2f} s | {tpot} |"
        )
    for row in rows:
        if row["outcome"] != "ok":
            yield f"failed: {' '.join(map(str, row['key']))}: {row['outcome']}: {row['reason']}"


def show(found: Sequence[Case]) -> None:
    seconds = 0.0
    for _, _, members in blocks(found):
        seconds += BUILD_S
        for case in members:
            seconds += RUN_S + 1.3 * case.ttft_s
            print(
                f"{seconds:5.0f} s  {case.model} {case.context} {case.role}: {case.config}, "
                f"{case.total / GB:.2f} GB, TTFT {case.ttft_s:.2f} s"
            )


def main() -> None:
    asked = with_summary(options(__doc__)).parse_args()
    if asked.summary:
        print("\n".join(summary(read(asked.output))))
        return
    prefer_expandable_segments()
    found = cases(find_gpu(asked.gpu), asked.only)
    if asked.plan_only or asked.output is None:
        show(found)
        return
    rows = RowFile(asked.output)
    run_all(found, rows, asked)
    print("\n".join(summary(rows.rows)))


if __name__ == "__main__":
    main()
