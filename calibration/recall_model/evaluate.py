"""How much of each task a model folder solves at each length, through plain transformers.

    python -m kvpareto.calibration.recall_model.evaluate --model DIR --out DIR/evaluation.json

The items are those that `calibrate` draws, with seeds that training never uses; answers are
generated greedily and scored by the tasks themselves. The model card is written from the result.
"""

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ...planner.errors import BadInput
from ..scores import Score
from ..tasks import TASKS, Item, Task
from ..tasks.arithmetic import Arithmetic
from ..tasks.needle import Needle
from ..tasks.variables import Variables

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
SEED = 7
VARIANTS: dict[str, Task] = {
    **TASKS,
    "needle-16-keys": Needle("needle-16-keys", keys=16),
    "needle-4-keys-4-values": Needle("needle-4-keys-4-values", keys=4, values=4),
    "variables-1-hop": Variables("variables-1-hop", chains=8, hops=1),
    "variables-4-chains": Variables("variables-4-chains", chains=4, hops=4),
    "arithmetic-2-steps": Arithmetic("arithmetic-2-steps", steps=2),
}
"""The tasks as `calibrate` runs them, and harder or easier ones."""


def make_items(model: str, name: str, length: int, count: int) -> list[Item]:
    return VARIANTS[name].items(AutoTokenizer.from_pretrained(model), length, count, SEED)


@torch.no_grad()
def answers(model: Any, tokenizer: Any, items: Sequence[Item], tokens: int) -> list[str]:
    """What a transformers model generates for each item, in batches of up to `tokens` tokens.

    Prompts of one length go together, so that none is padded.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        groups[len(item.prompt_ids)].append(place)
    found = [""] * len(items)
    for length, places in groups.items():
        size = max(1, tokens // length)
        for start in range(0, len(places), size):
            chosen = places[start : start + size]
            ids = torch.tensor([items[place].prompt_ids for place in chosen], device=model.device)
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max(items[place].max_new_tokens for place in chosen),
                do_sample=False,
            )
            for place, row in zip(chosen, made[:, length:], strict=True):
                found[place] = tokenizer.decode(row, skip_special_tokens=True)
    return found


def evaluate(
    folder: Path,
    out: Path,
    *,
    lengths: Sequence[int],
    count: int,
    device: str,
    workers: int,
    tokens: int,
    seconds: float,
    names: Sequence[str] = tuple(VARIANTS),
) -> dict[str, Any]:
    """Score `names` at `lengths`, shortest first, until `seconds` have gone; the JSON document is
    rewritten after each."""
    started = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found: dict[str, Any] = {
        "model": folder.name,
        "items": count,
        "seed": SEED,
        "torch": torch.__version__,
        "device": device,
        "scores": {},
        "examples": {},
    }
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        jobs = {
            (length, name): pool.submit(make_items, str(folder), name, length, count)
            for length in lengths
            for name in names
        }
        next(iter(jobs.values())).result()  # processes are there before CUDA is
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device)
        for (length, name), job in jobs.items():
            if time.monotonic() - started > seconds:
                print("time is up", flush=True)
                pool.shutdown(wait=False, cancel_futures=True)
                break
            task = VARIANTS[name]
            try:
                items = job.result()
            except BadInput:  # the text is too short for this many facts
                continue
            texts = answers(model, tokenizer, items, tokens)
            score = Score.of([task.score(i, text) for i, text in zip(items, texts, strict=True)])
            row = found["scores"].setdefault(name, {})
            row[str(length)] = [round(score.value, 4), round(score.stderr, 4)]
            found["examples"][f"{name} {length}"] = [texts[0][:200], list(items[0].answers)]
            told = time.monotonic() - started
            print(f"{told:6.1f} s  {length:6d}  {name:24s} {score.value:.3f}", flush=True)
            out.write_text(json.dumps(found, indent=1) + "\n")
    return found


def main() -> None:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(description="evaluate a recall model")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--tasks", default=",".join(VARIANTS))
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--tokens", type=int, default=524288, help="tokens a batch")
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--device", default="cuda" if torch.backends.cuda.is_built() else "cpu")
    asked = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    evaluate(
        asked.model,
        asked.out,
        lengths=[int(length) for length in asked.lengths.split(",")],
        count=asked.items,
        device=asked.device,
        workers=asked.workers,
        tokens=asked.tokens,
        seconds=asked.seconds,
        names=asked.tasks.split(","),
    )


if __name__ == "__main__":
    main()
