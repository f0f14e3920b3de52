"""`paper`: the KV Pareto paper's table by measurement, its five models at 10k and 128k tokens.

For each model and context (random weights at real shapes, batch 1):

  baseline   transformers, W16 K16V16, one shot, SDPA, last token's logits
  eager      the same with eager attention, at 10k
  paper      the paper's frontier point (arXiv 2512.01953) on our runtime: its groups, its chunk
             of 256; at 128k a chunk of 1024, which it recommends there
  ours       what `plan --objective latency` recommends within the memory of the paper's point, for
             a loss no larger than is predicted of that

Totals are what the device holds at its worst. All of 10k comes first, then 128k, so that a run cut
short lacks the end of 128k.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

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

from ..paper_table import PAPER
from .planned_run import PlannedRun
from .row_file import by_key as key_of
from .row_file import held

__all__ = ["key_of", "line", "runs", "summary"]

CONTEXTS = (10_240, 131_072)
OUTPUT = 24
LONG_CHUNK = 1024
LONG_ORDER = (1, 3, 0, 2, 4)  # of PAPER's models, at 128k: Llamas first
RUN_S = 0.7  # of a run, beside the predicted seconds


def runs(options: argparse.Namespace) -> list[PlannedRun]:
    """All runs in their order; those of one model and weights stand together."""
    gpu, only, planned = find_gpu(options.gpu), options.only.lower(), []
    for context in CONTEXTS:
        order = range(len(PAPER)) if context == CONTEXTS[0] else LONG_ORDER
        for model, text, _ in (PAPER[i] for i in order):
            if only in model.lower():
                planned += _runs(model, text, context, gpu)
    return planned


def _runs(model: str, text: str, context: int, gpu: Hardware) -> list[PlannedRun]:
    spec, work = load_model(model, offline=True), Workload(context, OUTPUT)

    def run(role: str, engine: Engine, config: Configuration) -> PlannedRun:
        seconds = latency.predict(spec, config, work, engine, gpu)
        size = memory.estimate(spec, config, work, engine, gpu).total
        assert seconds is not None
        return PlannedRun(
            key=(model, context, role),
            model=model,
            config=config,
            workload=work,
            engine=engine,
            seconds=RUN_S + 1.3 * seconds.ttft_s,
            fields={"role": role, "predicted": {"ttft_s": seconds.ttft_s, "total": size}},
        )

    plain, paper = Configuration(), Configuration.parse(text)
    if context > CONTEXTS[0]:
        paper = paper.with_chunk(LONG_CHUNK)
    given = memory.estimate(spec, paper, work, KVPARETO, gpu).total_high
    loss = 1 - accuracy.predict(spec, paper, context).low
    asked = Request(spec, work, KVPARETO, given, gpu, max_loss=loss, objective="latency")
    ours = recommend(asked).recommended.config
    roles = [run("baseline", TRANSFORMERS, plain)]
    if context == CONTEXTS[0]:
        roles.append(run("eager", TRANSFORMERS_EAGER, plain))
    packed = [("paper", paper), ("ours", ours)]
    # stable: weights are built once for neighbours of the same bits
    packed.sort(key=lambda item: -item[1].weight_bits)
    return [*roles, *(run(role, KVPARETO, config) for role, config in packed)]


def line(row: dict[str, Any]) -> str:
    """Measured beside predicted, in one line."""
    run, predicted = row["execution"], row["predicted"]
    return (
        f"{run['context']} {row['role']} {run['config']}: {(held(row) or 0) / GB:.2f} GB "
        f"({predicted['total'] / GB:.2f}), TTFT {run.get('ttft_s') or 0:.2f} s "
        f"({predicted['ttft_s']:.2f}) {row['reason'] or ''}"
    )


def summary(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> Iterator[str]:
    """A line a configuration, each context's reductions against its baseline."""
    papers = {model: reduction for model, _, reduction in PAPER}
    by_key = {tuple(row["key"]): row for row in rows if row["outcome"] == "ok"}
    yield "| model | context | | configuration | total | of baseline | TTFT | TPOT |"
    yield "|---|---|---|---|---|---|---|---|"
    for (model, context, role), row in by_key.items():
        run, base = row["execution"], by_key.get((model, context, "baseline"))
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
