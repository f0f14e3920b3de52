"""Times of bursts that vLLM was measured with, each beside what the planner says of it.

They are the runs of profiles/vllm: starts, and the plugin's rows and receipts. The fit of
planner/engines/vllm/step_time.py reads them (fit_speed.py).
A burst within which Triton compiled a kernel (`compiled_within`) is neither fitted nor counted: the
same burst of another start took one to two seconds less. Nor is one whose prompt ran in a graph of
a size that was asked for by hand (`prompt_in_graph`): a plan's server captures none so large.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ... import profiles
from ...planner.engines.vllm.speed import Arrivals, timing
from ...planner.engines.vllm.step_time import Served, served
from ...planner.hardware.gpu_names import find_gpu
from .row_server import FORMATS, settings_of, shape_of

COMPILED = {("s-q30-auto", 32), ("s-q30-auto", 64)}
"""Such bursts of rows that were written before it was seen: row and users."""
PACKED_ROWS = "vllm/plugin_0.26_h200.jsonl"


@dataclass(frozen=True)
class Seen:
    """One measured time of one burst: `what` is ttft, tpot or total of `asked`."""

    row: str
    shape: str
    what: str
    served: Served
    asked: Arrivals
    seconds: float

    def predicted(self, rates: Mapping[str, float]) -> float:
        return float(getattr(timing(self.served, rates, self.asked), self.what))


def read_runs() -> list[Seen]:
    """Every time of every burst that is fitted."""
    found: list[Seen] = []
    for name in ("starts_0.26_h200", "speeds_0.26_h200"):
        for line in profiles.read(f"vllm/{name}.jsonl").splitlines():
            row = json.loads(line)
            if row.get("triton", True):
                found += [seen for run in row.get("speed", ()) for seen in _seen(row, run)]
    return found


def read_plugin_runs() -> list[Seen]:
    """Times of the plugin in 4 bits, whole models with products that are vLLM's."""
    found: list[Seen] = []
    for line in profiles.read(PACKED_ROWS).splitlines():
        row = json.loads(line)
        weights, cache = row["engine"].split(":")
        if cache != "plugin" or weights not in FORMATS:
            continue
        # as benchmarks/vllm/plugin.py starts its engines, where the row says nothing else
        started: dict[str, Any] = {
            "id": f"{row['engine']} {row['layers']} {row['compiled']}", "shape": "llama8",
            "kv_cache_dtype": "int4_per_token_head", "attention_backend": "CUSTOM",
            "max_model_len": 135_000, "max_num_batched_tokens": 8192, "max_num_seqs": 128,
            "gpu_memory_utilization": 0.9, "enforce_eager": False, "weights": weights,
        }  # fmt: skip
        started |= {name: row[name] for name in (*started, "gpu") if name in row}
        if row["test"] == "verify":
            found += _seen(started | {"layers": None}, row)
        elif row["test"] in ("long", "batch"):
            layers = row["layers"] if row["layers"] != 32 else None
            found += _seen(started | {"layers": layers}, _long_or_batch(row))
    return found


def _long_or_batch(row: Mapping[str, Any]) -> dict[str, Any]:
    """The burst of a test of benchmarks/vllm/plugin.py."""
    alone = row["test"] == "long"
    first = row["ttft_s"] if alone else row["prefill_16x16k_s"]
    step = row["tpot_ms"] / 1e3 if alone else 16 / row["decode_16x16k_tokens_s"]
    total = first + 128 * step
    if alone:
        run = {"users": 1, "context": 131_000, "output": 129, "ttft_s": first, "tpot_s": step}
    else:
        run = {"users": 16, "context": 16_000, "output": 128, "prefill_s": first}
    return run | {"total_s": total}


def _seen(row: Mapping[str, Any], run: Mapping[str, Any]) -> list[Seen]:
    if (
        run.get("compiled_within")
        or run.get("prompt_in_graph")
        or (row["id"], run["users"]) in COMPILED
    ):
        return []
    settings = settings_of(row, attention_backend=row.get("attention_backend", ""))
    spec = shape_of(row["shape"], row["layers"], row["weights"])
    link = _links()[row["gpu"].split()[-1]]
    weights, cards = FORMATS[row["weights"]], row.get("cards", 1)
    model = served(spec, settings, find_gpu(row["gpu"]), link, weights, cards)
    most = row["max_num_seqs"]

    def one(what: str, output: int, seconds: float) -> Seen:
        asked = Arrivals(run["users"], run["context"], output, most)
        return Seen(row["id"], row["shape"], what, model, asked, seconds)

    if "ttft_s" in run:
        names = ("ttft", "ttft_s"), ("tpot", "tpot_s"), ("total", "total_s")
        return [one(what, run["output"], run[key]) for what, key in names]
    # earlier starts: until each has one token, until each has `output` further ones
    return [one("total", 1, run["prefill_s"]), one("total", run["output"] + 1, run["total_s"])]


def _links() -> dict[str, float]:
    links: dict[str, float] = json.loads(profiles.read("vllm/speed.json"))["links"]
    return links
