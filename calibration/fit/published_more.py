"""Rows of raw_more.csv and of three tables after it, mapped onto the grammar when collected.

Unlike the older table, each row says what its task scores by chance and unquantized, so that the
regression knows the floor under a score and how hard the task was. Rows outside of the grammar
(learned rotations, codebooks) and suspect ones were left out there. Those of the three later tables
were predicted before anything learned from them: evidence/blind_rows.py repeats that test.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from ...planner.accuracy.task_kinds import EXAMS
from ...planner.formats.configuration import Configuration
from .accuracy_rows import AccuracyRow

FILES = MORE, BLIND, CACHE, LATER = (
    "raw_more.csv",
    "raw_blind.csv",
    "raw_cache.csv",
    "raw_later.csv",
)
NEXT = "raw_next.csv"
"""Rows in the same columns that no fit has, of weights at 3 and 2 bits too."""
EXACT = ("longeval", "longbench passageretrieval", "openai mrcr", "needle", "passkey")
"""Beginnings of tasks that ask for one place of the context."""
WRITTEN_OUT = ("strategyqa",)
"""Beginnings of tasks whose yes or no ends a chain of thought: a broken model writes no answer that
counts, so guessing is no floor (Llama-2-7B at 2 bits scores .26, where chance is .5)."""


EXACT_PROMPT = ("quanto", "HQQ")
"""What notes and layouts call caches that are written after the whole prompt was attended in 16
bits, as transformers' are; every window of recent tokens is of such a cache."""
FLOATS = ("fp8",)
"""What notes call keys that are floats without a scale of a block."""
SHORT = ("strategyqa", "eq bench", *EXAMS)
"""Beginnings of tasks that end in a yes or no, a letter or a few ratings, after a short chain or
none."""


def more_rows(folder: Path, files: Sequence[str] = FILES) -> list[AccuracyRow]:
    """All rows of these files in `folder`."""
    rows: list[AccuracyRow] = []
    for name in files:
        with (folder / name).open(newline="", encoding="utf-8") as file:
            rows += [_row(raw) for raw in csv.DictReader(file)]
    return rows


def kind_of(task: str, collected: str) -> str:
    """What a task asks of the cache, where the table's `collected` kind is coarser: retrieval that
    must be exact against tolerant reading, and a short answer against longer reasoning."""
    name = task.lower()
    if name.startswith(SHORT):
        return "short_reasoning"
    if collected == "retrieval" and not name.startswith(EXACT):
        return "reading"
    return collected


def reads_prompt_exactly(residual: int, described: str) -> bool:
    """Whether a cache with a window of `residual` tokens, or one so `described`, is read only after
    the prompt was attended in 16 bits."""
    return residual > 0 or any(name in described for name in EXACT_PROMPT)


def _row(raw: dict[str, str]) -> AccuracyRow:
    k_bits, v_bits = float(raw["k_bits"]), float(raw["v_bits"])
    quantized = k_bits < 16 or v_bits < 16
    notes = raw["notes"]
    # layouts do not depend on bits: 3 bits, which the grammar lacked, are read at 4
    bits = "k4v4" if quantized else "k16v16"
    layout = raw["layout"]
    if layout and not layout.startswith("+"):
        layout = f"-{layout}"
    weight_bits = float(raw["weight_bits"])  # nor had it weights of 3 and 2 bits
    config = Configuration.parse(f"w16a16-{bits}{layout}")
    weights_by_rounding = "RTN" in raw["weight_method"] or "EXL2" in raw["weight_method"]
    return AccuracyRow(
        model=raw["model"],
        task=raw["task"],
        kind=kind_of(raw["task"], raw["kind"]),
        context=int(raw["context_tokens"]),
        weight_bits=weight_bits,
        k_bits=k_bits,
        v_bits=v_bits,
        granularity=str(config.granularity),
        group_size=config.group_size or 0,
        block_tokens=config.block_tokens or 1,
        residual=config.residual,
        smoothing=config.smoothing,
        rotate_k=config.rotation,
        rotate_v=config.rotation,
        protected_layers=(),
        protected_bits=16.0,
        retention=float(raw["value"]) / float(raw["baseline"]),
        sd=float(raw["sd"]),
        weight=float(raw["weight"]),
        provenance="published",
        source=raw["source"],
        chance=0.0 if raw["task"].lower().startswith(WRITTEN_OUT) else float(raw["chance"]),
        baseline=float(raw["baseline"]),
        method="RTN" if weights_by_rounding else "",
        exact_prompt=quantized and reads_prompt_exactly(config.residual, notes),
        float_keys=k_bits < 16 and any(name in notes for name in FLOATS),
    )
