"""Train the recall model: from random weights to the generated tasks, in minutes on one GPU.

    python -m kvpareto.calibration.recall_model.train --out DIR --minutes 5 --seed 0
    python -m kvpareto.calibration.recall_model.train --out DIR --start FOLDER --facts 512
    python -m kvpareto.calibration.recall_model.train --out DIR --steps 0      # untrained
    python -m kvpareto.calibration.recall_model.train --out DIR --shape granite-hybrid --minutes 4

The budget is time: the learning rate falls to zero as it runs out, the curriculum is pulled along.
`DIR` is a model folder from the start and again at every checkpoint; `training.jsonl` in it tells
what was learned when.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    AutoModelForCausalLM,
    GraniteMoeHybridForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SeedOssForCausalLM,
)

from . import granite, network
from .batches import TrainingBatch, stream
from .curriculum import FIRST, LENGTHS, MOST, MOST_CHAINED, PASSED, PASSED_CHAINED, Level
from .samples import KINDS
from .training_scores import TrainingScores
from .vocabulary import build_tokenizer
from .words import Words

RECALL = [list(KINDS).index(kind) for kind in ("pairs", "needles")]
CHAINED = [list(KINDS).index(kind) for kind in ("variables",)]
"""Tasks whose accuracy moves the two levels of the curriculum on."""
WARMUP = 200  # steps
DECAY = 0.45  # the last part of the time, in which the learning rate falls to zero
CHECKPOINT_S = 30.0


def new_model(kind: str, vocabulary: int, **changes: Any) -> PreTrainedModel:
    """A model of random weights: "recall", or a kind of granite.MIXERS."""
    if kind == "recall":
        return SeedOssForCausalLM(network.shape(vocabulary, **changes))
    model = GraniteMoeHybridForCausalLM(granite.shape(vocabulary, kind, **changes))
    granite.begin(model)
    return model


def _silence(model: PreTrainedModel) -> None:
    if isinstance(model, SeedOssForCausalLM):
        network.silence(model)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A model folder in bfloat16; what was there is replaced file by file."""
    kept: Any = type(model)(model.config)
    kept.to(torch.bfloat16)
    kept.load_state_dict(model.state_dict())
    fresh = folder / ".new"
    kept.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    for path in list(fresh.iterdir()):
        path.replace(folder / path.name)
    fresh.rmdir()


def learning_rate(peak: float, step: int, gone: float) -> float:
    """Up over the first steps, flat, then linearly to zero at the end of the time."""
    return peak * min(1.0, (step + 1) / WARMUP) * min(1.0, max(0.0, 1.0 - gone) / DECAY)


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    *,
    seconds: float,
    steps: int | None,
    seed: int,
    peak: float = 1e-3,
    decay: float = 0.05,
    tokens: int = 65536,
    workers: int = 14,
    device: torch.device,
    compiled: bool = True,
    log_every: int = 200,
    facts: int = FIRST,
    longest: int = max(LENGTHS),
) -> PreTrainedModel:
    """Train in place for `seconds`, at most `steps` steps; `tokens` a step. `facts` is where the
    curriculum begins, `longest` the tokens of a text at most."""
    shared = torch.tensor([facts, FIRST, 0.0, longest], dtype=torch.float64).share_memory_()
    cuda = device.type == "cuda"
    batches = stream(Words(tokenizer), shared, tokens, seed, workers, cuda)
    first = next(batches)  # the workers are started before CUDA is
    moved: Any = model  # transformers' own types do not allow for `to`
    moved.to(device, torch.float32)
    _silence(model)
    kind: Any = (
        network.Trainable if isinstance(model, SeedOssForCausalLM) else granite.GraniteTrainable
    )
    dtype = torch.bfloat16 if cuda else torch.float32
    runner = kind(model, dtype=dtype, compiled=compiled).to(device)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=peak,
        betas=(0.9, 0.95),
        fused=cuda,
    )
    _steps(
        runner, optimizer, _chain(first, batches), tokenizer, out, shared,
        seconds=seconds, steps=steps, peak=peak, log_every=log_every, tokens=tokens,
    )  # fmt: skip
    return model


def _chain(first: TrainingBatch, rest: Iterator[TrainingBatch]) -> Iterator[TrainingBatch]:
    yield first
    yield from rest


def _steps(
    runner: Any,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[TrainingBatch],
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    shared: Tensor,
    *,
    seconds: float,
    steps: int | None,
    peak: float,
    log_every: int,
    tokens: int,
) -> None:
    model = runner.model
    device = model.device
    levels = [
        Level(int(shared[0]), MOST, PASSED),
        Level(int(shared[1]), MOST_CHAINED, PASSED_CHAINED),
    ]
    moving = [torch.tensor(kinds, device=device) for kinds in (RECALL, CHAINED)]
    progress = TrainingScores()
    started = saved = time.monotonic()
    pending: list[Tensor] = []
    step = 0
    for step, batch in enumerate(batches):
        now = time.monotonic()
        gone = (now - started) / seconds
        if gone >= 1 or step == steps:
            break
        shared[2] = gone
        here = batch.to(device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(peak, step, gone)
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
            losses = runner(here.ids, here.places, here.labels)
            loss = (losses[0] * here.weights).sum() / here.weights.sum()
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _silence(model)
        losses = losses.detach()
        progress.add(here, losses)
        pending.append(torch.stack([_accuracy(here.kinds, losses[1], kinds) for kinds in moving]))
        if len(pending) == 4:  # read back seldom: each time waits for the GPU
            if _raise_levels(levels, torch.stack(pending).tolist(), shared):
                told = [level.facts for level in levels]
                print(f"{now - started:.0f} s: {told} facts", flush=True)
            pending.clear()
        if step % log_every == 0 or now - saved > CHECKPOINT_S:
            line = {
                "step": step,
                "seconds": round(now - started, 1),
                "tokens": (step + 1) * tokens,
                "facts": [level.facts for level in levels],
                "rate": optimizer.param_groups[0]["lr"],
                "loss": round(loss.item(), 4),
                "gradient": round(float(norm), 3),
                **progress.close(),
            }
            _log(out, line)
        if now - saved > CHECKPOINT_S:
            save(model, tokenizer, out)
            saved = time.monotonic()
    took = time.monotonic() - started
    _log(out, {"step": step, "seconds": round(took, 1), "done": True, **progress.close()})


def _raise_levels(levels: list[Level], batches: list[list[float]], shared: Tensor) -> bool:
    """Whether a level was raised by its accuracies on these batches; `shared` holds their facts,
    for the processes that make batches."""
    raised = False
    for accuracies in batches:
        for place, (level, accuracy) in enumerate(zip(levels, accuracies, strict=True)):
            if accuracy >= 0 and level.learn(accuracy):
                shared[place] = level.facts
                raised = True
    return raised


def _accuracy(kinds: Tensor, right: Tensor, wanted: Tensor) -> Tensor:
    """The share of right tokens in answers of the wanted tasks; -1 where there are none."""
    asked = torch.isin(kinds, wanted).float()
    return torch.where(asked.sum() > 0, (right * asked).sum() / asked.sum().clamp(min=1), -1.0)


def _log(out: Path, line: dict[str, Any]) -> None:
    text = json.dumps(line)
    with (out / "training.jsonl").open("a") as file:
        file.write(text + "\n")
    print(text, flush=True)


def main() -> None:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(description="train the recall model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=None, help="stop earlier; 0: untrained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--tokens", type=int, default=65536, help="tokens a step")
    parser.add_argument("--workers", type=int, default=14, help="processes that make texts")
    parser.add_argument("--layers", type=int, default=8, help="of the recall model")
    parser.add_argument("--shape", default="recall", choices=["recall", *granite.MIXERS])
    parser.add_argument("--start", type=Path, help="go on from this model folder")
    parser.add_argument("--facts", type=int, default=FIRST, help="where the curriculum begins")
    parser.add_argument("--longest", type=int, default=max(LENGTHS), choices=list(LENGTHS))
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--device", default="cuda" if _has_cuda() else "cpu")
    asked = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.manual_seed(asked.seed)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs all the same
    tokenizer = build_tokenizer()
    if asked.start:
        model: Any = AutoModelForCausalLM.from_pretrained(asked.start)
    else:
        changes = {"num_hidden_layers": asked.layers} if asked.shape == "recall" else {}
        model = new_model(asked.shape, len(tokenizer), **changes)
    _silence(model)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "training.jsonl").unlink(missing_ok=True)
    save(model, tokenizer, asked.out)
    if asked.steps != 0:
        train(
            model, tokenizer, asked.out, seconds=asked.minutes * 60, steps=asked.steps,
            seed=asked.seed, peak=asked.peak, tokens=asked.tokens, workers=asked.workers,
            device=torch.device(asked.device), compiled=not asked.eager,
            facts=asked.facts, longest=asked.longest,
        )  # fmt: skip
        save(model, tokenizer, asked.out)
    print(f"model folder: {asked.out}", flush=True)


def _has_cuda() -> bool:
    return torch.backends.cuda.is_built() and os.path.exists("/dev/nvidiactl")


if __name__ == "__main__":
    main()
