"""Divergence from 16 bits for many configurations: the unquantized model runs once a text.

A window of a text is fed twice over: its body in the configuration's own chunks, as a prompt is
prefilled, then its tail in short chunks, each of which finds the cache as decoding would, with
the window of recent tokens in 16 bits. Both are compared apart: the body's mean is over all
context lengths up to the window's, the tail's is at its end. KL is exact, over the whole
vocabulary (calibration/measure/divergence.py); all configurations read the same texts, so every
difference is paired.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ...planner.formats.configuration import Configuration
from ...planner.models.spec import ModelSpec
from ...runtime import Session
from ..measure.divergence import STEP, _block_score, compare
from .gguf_folder import WEIGHTS


@dataclass(frozen=True)
class ForcingPlan:
    """How windows [N, T] are read: `tail` tokens at the end, `places` [P] compared in each, the
    first `body_places` of them in the body."""

    windows: Tensor
    tail: int
    places: Tensor
    body_places: int

    @classmethod
    def of(cls, windows: Tensor, tail: int, count: int) -> "ForcingPlan":
        """`count` places of the body, evenly spaced, and every place of the tail but the last,
        whose next token is not known."""
        body = windows.shape[1] - tail
        count = min(count, body)
        places = torch.linspace(0, body - 1, count).round().long()
        ends = torch.arange(body, windows.shape[1] - 1)
        return cls(windows, tail, torch.cat([places, ends]), count)

    def chunks(self, config: Configuration) -> list[int]:
        """Sizes of the chunks of a window under a configuration."""
        body = self.windows.shape[1] - self.tail
        size = config.chunk or body
        sizes = [min(size, body - at) for at in range(0, body, size)]
        return sizes + [min(STEP, self.tail - at) for at in range(0, self.tail, STEP)]


class Teacher:
    """The unquantized model's logits at a plan's places, on the device in its own precision."""

    def __init__(self, session: Session, plan: ForcingPlan) -> None:
        self.plan = plan
        chunks = plan.chunks(session.config)
        self._logits = [
            torch.cat(list(session.logits(row[None], plan.places, chunks)), dim=1)
            for row in plan.windows
        ]

    def compare(self, session: Session) -> dict[str, object]:
        """What a session, of one sequence, says at the same places (`row_of`)."""
        plan, columns = self.plan, []
        chunks = plan.chunks(session.config)
        for row, ours in zip(plan.windows, self._logits, strict=True):
            targets = row[plan.places + 1][None].to(ours.device)
            done, parts = 0, []
            for theirs in session.logits(row[None], plan.places, chunks):
                here = slice(done, done + theirs.shape[1])
                parts.append(compare(ours[:, here], theirs, targets[:, here]))
                done += theirs.shape[1]
            columns.append(torch.cat(parts, dim=2)[:, 0])
        values = torch.stack(columns, dim=1).cpu()  # [4, windows, places]
        body, tail = values[..., : plan.body_places], values[..., plan.body_places :]
        return {**row_of(body), "tail": row_of(tail)}


def row_of(values: Tensor) -> dict[str, object]:
    """Means over windows and places of [4, N, P], each with the error that blocks show.

    `kl` in nats; `top1`, the share of places where both choose the same token; `nll`, of the
    text's own next token; `excess`, how much that is above the unquantized model's.
    """
    kl, same, nll, reference = values.flatten(1).numpy()
    row: dict[str, object] = {"n": kl.size}
    for name, each in (("kl", kl), ("top1", same), ("nll", nll), ("excess", nll - reference)):
        score = _block_score(each)
        row[name] = rounded(score.value)
        if name != "nll":
            row[f"{name}_se"] = rounded(score.stderr, 2)
    return row


def rounded(value: float, digits: int = 4) -> float:
    """To significant digits, which keeps rows short."""
    return float(f"{value:.{digits}g}")


def sessions_room(context: int) -> int:
    """Tokens of a cache for windows of `context`, in whole blocks of every format."""
    return -(-context // 256) * 256


def single(model: Session, spec: ModelSpec, config: Configuration, context: int) -> Session:
    """A session of one sequence over an already loaded model."""
    return Session(
        model.model,
        spec,
        config,
        tokens=sessions_room(context),
        tokenizer=model.tokenizer,
        graphs=False,
    )


def key_bias_order(folder: Path) -> list[int]:
    """Layers by the largest key bias, where there are any: those that outlier keys come from."""
    sizes = {}
    with safe_open(folder / WEIGHTS, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no dict
            if name.endswith("k_proj.bias"):
                layer = int(name.split(".layers.")[1].split(".")[0])
                sizes[layer] = float(file.get_tensor(name).float().abs().max())
    return sorted(sizes, key=lambda layer: -sizes[layer])
