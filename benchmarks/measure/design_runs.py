"""`runs`: ten models, and a spread over the rest of the space: time, memory, and the prediction.

A block is one model at one number of weight bits, whose weights are built once. Blocks come in
passes, so that a run cut short has seen every model before it sees one again. Within a block,
contexts, chunks and KV formats are dealt from decks that are shuffled anew when they are through:
every value comes up about equally often, beside others each time.

The paper's five shapes (arXiv 2512.01953), Qwen3-8B, Gemma-3-4B (windows, heads of 256 channels),
gpt-oss-20b (experts, sinks, windows), and two relatives of Granite 4 (real_shapes.py).
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.hardware.gpus import Hardware
from kvpareto.planner.latency.predict import predict
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.workload import Workload

from .planned_run import PlannedRun
from .real_shapes import spec_of

T = TypeVar("T")

OUTPUT = 24  # tokens decoded in each run
SEED = 4
RUN_S = 1.2  # a guess: a run's captures, warm-up and steps, beside its prefill

PASSES: tuple[tuple[tuple[str, int, int], ...], ...] = (
    # (model, weight bits, runs)
    (
        ("meta-llama/Llama-3.1-8B-Instruct", 4, 9),
        ("Qwen/Qwen2.5-3B-Instruct", 4, 8),
        ("google/gemma-3-4b-it", 4, 9),
        ("granite-4.0-micro-like", 4, 8),
        ("Qwen/Qwen2.5-7B-Instruct", 4, 8),
        ("gpt-oss-20b-16bit", 16, 9),
        ("meta-llama/Llama-3.2-3B-Instruct", 4, 8),
        ("mistralai/Mistral-7B-Instruct-v0.3", 4, 7),
        ("Qwen/Qwen3-8B", 4, 8),
        ("granite-4.0-tiny-like", 16, 8),
    ),
    (
        ("meta-llama/Llama-3.1-8B-Instruct", 16, 7),
        ("Qwen/Qwen2.5-3B-Instruct", 16, 6),
        ("google/gemma-3-4b-it", 16, 7),
        ("granite-4.0-micro-like", 16, 6),
        ("Qwen/Qwen2.5-7B-Instruct", 16, 6),
        ("meta-llama/Llama-3.2-3B-Instruct", 16, 6),
        ("mistralai/Mistral-7B-Instruct-v0.3", 16, 6),
        ("Qwen/Qwen3-8B", 16, 7),
    ),
    (
        ("meta-llama/Llama-3.1-8B-Instruct", 8, 6),
        ("Qwen/Qwen2.5-3B-Instruct", 8, 5),
        ("google/gemma-3-4b-it", 8, 5),
        ("granite-4.0-micro-like", 8, 5),
        ("Qwen/Qwen3-8B", 8, 5),
        ("gpt-oss-20b-16bit", 8, 4),
        ("granite-4.0-tiny-like", 4, 4),
    ),
)
LONG = {  # a block's last run, where it is not one of the deck: (context, chunk, KV format)
    ("meta-llama/Llama-3.1-8B-Instruct", 4): (65_536, 1024, "k4v4-g64"),
    ("google/gemma-3-4b-it", 4): (131_072, 2048, "k8v8"),
    ("google/gemma-3-4b-it", 16): (131_072, 512, "k4v4-g64"),
    ("gpt-oss-20b-16bit", 16): (131_072, 2048, "k4v4-g32"),
    ("meta-llama/Llama-3.2-3B-Instruct", 16): (131_072, 4096, "k16v16"),
    ("granite-4.0-micro-like", 4): (131_072, 1024, "k2v2-g32"),
    ("meta-llama/Llama-3.1-8B-Instruct", 8): (98_304, 4096, "k4v4-kc-g64"),
}
BATCHED = {  # four sequences, whose chunks go through the general kernel: short ones
    ("meta-llama/Llama-3.1-8B-Instruct", 16): (2048, 512, "k4v4-g64"),
    ("Qwen/Qwen2.5-3B-Instruct", 4): (2048, None, "k16v16"),
    ("Qwen/Qwen3-8B", 4): (4096, 1024, "k8v8"),
    ("google/gemma-3-4b-it", 16): (2048, 1024, "k4v4-g64"),
}
CONTEXTS = (2048, 8192, 32_000, 4096, 16_000, 8192, 32_000, 2048, 20_480)
CHUNKS = (1024, None, 256, 2048, 512, 4096, 1024, 128, 2048)
FORMATS = (
    "k16v16", "k4v4-g64", "k8v8", "k4v4-kc-g64", "k2v2-g32", "k4v4-g64+res128", "k8v4-g64",
    "k4v4-g64+smooth+rot", "k4v4", "k4v2-g64", "k2v2-kc-g32+res128", "k4v4-pb128-g64", "k16v16",
    "k8v8-pt", "k4v4-g32+rot", "k8v4-kc128-g64", "k4v4-g64",
)  # fmt: skip
MOST_CHUNKS = 80  # of a deck's run: 32,000 tokens in chunks of 128 would be 250 passes
NO_SMOOTHING = ("gpt-oss",)  # a sink logit would see it


def runs(options: argparse.Namespace) -> list[PlannedRun]:
    """All runs in the order they are made."""
    gpu = find_gpu(options.gpu)
    shuffle = random.Random(SEED)
    contexts, chunks, formats = (_deck(shuffle, deck) for deck in (CONTEXTS, CHUNKS, FORMATS))
    planned = []
    for model, bits, count in (block for blocks in PASSES for block in blocks):
        special = [
            (shape, batch)
            for table, batch in ((BATCHED, 4), (LONG, 1))
            if (shape := table.get((model, bits))) is not None
        ]
        shapes = []
        while len(shapes) < count - len(special):
            context, chunk, form = next(contexts), next(chunks), next(formats)
            while chunk is not None and (chunk >= context or context > MOST_CHUNKS * chunk):
                chunk = next(chunks)
            while any(name in model for name in NO_SMOOTHING) and "smooth" in form:
                form = next(formats)
            shapes.append(((context, chunk, form), 1))
        for (context, chunk, form), batch in (*shapes, *special):
            config = Configuration.parse(f"w{bits}a16-{form}").with_chunk(chunk)
            planned.append((model, config, Workload(context, OUTPUT, batch=batch)))
    wanted = options.only.lower()
    return [_planned(*run, gpu) for run in planned if wanted in run[0].lower()]


def _planned(model: str, config: Configuration, workload: Workload, gpu: Hardware) -> PlannedRun:
    """The planner's numbers before the run, to stand beside what is measured."""
    spec = spec_of(model)
    size = estimate(spec, config, workload, KVPARETO, gpu)
    seconds = predict(spec, config, workload, KVPARETO, gpu)
    assert seconds is not None
    predicted = {
        "allocated_resident": size.allocated_resident,
        "allocated_peak": size.allocated_peak,
        "total": size.total,
        "total_low": size.total_low,
        "total_high": size.total_high,
        "ttft_s": seconds.ttft_s,
        "tpot_s": seconds.tpot_s,
    }
    return PlannedRun(
        key=(model, str(config), workload.context, workload.batch),
        model=model,
        config=config,
        workload=workload,
        engine=KVPARETO,
        seconds=RUN_S + seconds.ttft_s,
        fields={"predicted": predicted},
    )


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What was run. Rows of earlier files are bare executions; of one that describes a model, only
    the model is a key."""
    if "key" in row:
        return tuple(row["key"])
    return tuple(row.get(name) for name in ("model", "config", "context", "batch"))


def line(row: dict[str, Any]) -> str:
    """Measured beside predicted, in one line."""
    run, predicted = row["execution"], row["predicted"]
    if row["outcome"] != "ok":
        return f"{run['config']} {run['context']}: {row['outcome']}: {row['reason']}"
    return (
        f"{run['config']} {run['context']}: TTFT {run['ttft_s']:.3f} s "
        f"({predicted['ttft_s']:.3f}), TPOT {1e3 * run['tpot_s']:.2f} ms "
        f"({1e3 * predicted['tpot_s']:.2f}), peak {run.get('allocated_peak', 0)} "
        f"({predicted['allocated_peak']})"
    )


def summary(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> Iterator[str]:
    """How many went well; kvpareto.calibration.evidence.memory_tables makes tables of them."""
    good = sum(row.get("execution", row).get("outcome") == "ok" for row in rows)
    yield f"{good} of {sum('architecture' not in row for row in rows)} runs went well"


def _deck(make: random.Random, values: tuple[T, ...]) -> Iterator[T]:
    """The values again and again, shuffled each time."""
    while True:
        yield from make.sample(values, len(values))
