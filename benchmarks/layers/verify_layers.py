"""Models whose layers are no plain attention, run for real under the planner's upper end as a cap.

    python -m benchmarks.layers.verify_layers rows.jsonl --seconds 200
    python -m benchmarks.layers.verify_layers --plan-only
    python -m benchmarks.layers.verify_layers rows.jsonl --summary
    python -m benchmarks.layers.verify_layers granite.jsonl --set frontier --seconds 200
    python -m benchmarks.layers.verify_layers speeds.jsonl --set speeds --seconds 120

Random weights at published shapes, cut in depth; one GPU. Each model is first checked: greedy
tokens in CUDA graphs equal those without, and logits those of the plain reference where the layers
are latent. Then its plans run, and every row has the planner's total beside the device's. Rows are
appended with fsync; a file that is there is gone on with.
"""

import argparse
import gc
import json
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvpareto.calibration.execution.memory_cap import prefer_expandable_segments
from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.hardware.gpu_names import find_gpu
from kvpareto.planner.memory.estimate import estimate
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import LatentAttention, ModelSpec

from ..measure.row_file import RowFile, read
from .layer_cases import SETS, Case, cases
from .layer_shapes import architecture, spec_of
from .layer_tables import line, summary

RUN_S, BUILD_S, MODEL_S = 4.0, 4.0, 80.0


@contextmanager
def folder_of(model: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / model
        path.mkdir()
        (path / "config.json").write_text(json.dumps(architecture(model)))
        yield str(path)


def check(opened: Any, config: Configuration, spec: ModelSpec) -> dict[str, Any]:
    """Tokens in graphs and without, and where latents are packed, logits by the plain way."""
    import torch

    from kvpareto.runtime.session import Session

    ids = torch.randint(5, 5000, (1, 700), generator=torch.Generator().manual_seed(3))
    found: dict[str, Any] = {}

    def run(**choices: Any) -> tuple[Any, list[int]]:
        with Session(opened.model, spec, config.with_chunk(256), tokens=740, **choices) as session:
            logits = session.prefill(ids).float().cpu()
            tokens = session.generate(ids, 16, stops=frozenset()).tokens[0]
            found.setdefault("why_eager", session.why_eager)
            return logits, tokens

    logits, tokens = run()
    again, eager = run(graphs=False)
    found["same_logits"] = float((logits - again).norm() / again.norm())
    found["same_tokens"] = sum(a == b for a, b in zip(tokens, eager, strict=True)) / len(tokens)
    return found


def check_latents(model: str, config: Configuration) -> dict[str, Any]:
    """Logits by the kernels beside those by the plain way, of a few layers without experts, whose
    routing a last bit would change."""
    import torch

    from kvpareto.runtime.session import Session
    from kvpareto.runtime.weights.random import random_model

    content = architecture(model) | {"num_hidden_layers": 4, "first_k_dense_replace": 4}
    if "linear_attn_config" in content:
        content["linear_attn_config"] = content["linear_attn_config"] | {
            "full_attn_layers": [4],
            "kda_layers": [1, 2, 3],
        }
    if content["model_type"] == "glm4_moe_lite":
        content["mlp_layer_types"] = ["dense"] * 4
    spec = read_model(content, model)
    few: Any = random_model(content, 16, "cuda")
    ids = torch.randint(5, 5000, (1, 700), generator=torch.Generator().manual_seed(3))
    logits, tokens = [], []
    for kernels in (True, False):
        with Session(few, spec, config.with_chunk(256), tokens=740, kernels=kernels) as session:
            logits.append(session.prefill(ids).float().cpu())
            tokens.append(session.generate(ids, 16, stops=frozenset()).tokens[0])
    off = float((logits[0] - logits[1]).norm() / logits[1].norm())
    same = sum(a == b for a, b in zip(*tokens, strict=True)) / len(tokens[0])
    return {"reference_logits": off, "reference_tokens": same}


def run_all(wanted: list[Case], rows: RowFile, seconds: float) -> None:
    from kvpareto.calibration.execution.loaded_model import open_model
    from kvpareto.calibration.execution.memory_cap import memory_of, numbered
    from kvpareto.calibration.execution.run import execute
    from kvpareto.calibration.execution.run_record import Warmup

    began = time.monotonic()
    signal.signal(signal.SIGALRM, _late)
    memory_of(numbered("cuda"))  # before torch has a context: what others hold is not a plan's
    gpu = find_gpu("H200") if "H200" in _device_name() else find_gpu("H100 SXM")
    blocks: dict[tuple[str, int], list[Case]] = {}
    for case in wanted:
        if case.key not in rows.done:
            blocks.setdefault((case.model, case.config.weight_bits), []).append(case)
    for (model, bits), members in blocks.items():
        left = seconds - (time.monotonic() - began)
        if left < BUILD_S + RUN_S:
            break
        signal.alarm(int(min(left, MODEL_S)))
        try:
            more: dict[str, Any] = {}
            latent = any(isinstance(m, LatentAttention) for m, _ in spec_of(model).mixer_counts)
            if members[0].checked and latent:
                print("  ", more := check_latents(model, members[0].config), flush=True)
                let_go()
            with folder_of(model) as source, open_model(
                source, bits, device="cuda", random_weights=True, offline=True
            ) as opened:  # fmt: skip
                print(f"{model} w{bits}: {opened.seconds:.1f} s", flush=True)
                checked = {}
                if members[0].checked:
                    checked = check(opened, members[0].config, opened.spec)
                    print("  ", checked, flush=True)
                for case in members:
                    if seconds - (time.monotonic() - began) < RUN_S:
                        break
                    size = estimate(opened.spec, case.config, case.workload, KVPARETO, gpu)
                    found = execute(
                        opened, case.config, case.workload, budget=size.total_high,
                        warmup=Warmup.SHORT,
                    )  # fmt: skip
                    row = {
                        "key": list(case.key), "check": checked | more, "predicted": _numbers(size),
                        "outcome": found.outcome, "reason": found.reason,
                        "execution": found.model_dump(
                            mode="json", by_alias=True, exclude_none=True
                        ),
                    }  # fmt: skip
                    rows.append(row)
                    print("  ", line(row), f"{time.monotonic() - began:.0f} s", flush=True)
        except Exception as error:
            traceback.print_exc()
            print(f"{model} w{bits} cannot run: {error!r:.600}", flush=True)
        finally:
            signal.alarm(0)


def let_go() -> None:
    """Give the card back what a model that is no more has left: its modules hold each other."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _late(*_: object) -> None:
    raise TimeoutError(f"a model took more than {MODEL_S} s")


def _numbers(size: Any) -> dict[str, int]:
    names = ("weights", "kv", "activation", "overhead", "total", "total_low", "total_high",
             "allocated_resident", "allocated_peak")  # fmt: skip
    return {name: getattr(size, name) for name in names}


def _device_name() -> str:
    import torch

    return str(torch.cuda.get_device_name())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, nargs="?", help="rows are appended to this file")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after this long")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--plan-only", action="store_true", help="print what would be run")
    parser.add_argument("--set", choices=SETS, default="layers", help="which plans")
    parser.add_argument("--summary", action="store_true", help="of the rows that are there")
    chosen = parser.parse_args()
    if chosen.output is None and not chosen.plan_only:
        parser.error("a file for the rows, or --plan-only")
    names = chosen.only.split(",")
    every = cases(chosen.set)
    wanted = [case for name in names for case in every if name in case.model]
    if chosen.plan_only:
        gpu = find_gpu("H200")
        for case in wanted:
            spec = spec_of(case.model)
            size = estimate(spec, case.config, case.workload, KVPARETO, gpu)
            print(*case.key, f"{size.total / 1e9:.2f} GB", spec.runnable)
        return
    if not chosen.summary:
        prefer_expandable_segments()
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        run_all(wanted, RowFile(chosen.output), chosen.seconds)
    rows = read(chosen.output)
    for row in rows if not chosen.summary else ():
        print(line(row))
    print(summary(rows))


if __name__ == "__main__":
    main()
