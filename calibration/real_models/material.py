"""What is measured on, as tokens of a model's own tokenizer, made before a GPU is taken.

A folder of a model gets, beside config and tokenizer,

    text.safetensors               the text as one row of tokens, and the tokens that open a window
    VARIANT-CONTEXT.safetensors    tasks whose ideal answers are fed (tasks.py)
    common-words-CONTEXT.json      prompts that are answered by generating
    gsm8k.json                     eight solved examples and the questions behind them
    maps.safetensors               what affine maps are learnt from, where it is not the prose
    mmlu.json                      questions with four answers, behind five of their subject

so that measuring reads no text at all. None of it is committed.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ...planner.errors import BadInput
from ..grid.items import make_batches
from ..grid.worker import write_batches
from ..tasks.common_words import CommonWords
from . import choices
from .gguf_folder import TEXT
from .grade_school import prompts
from .tasks import BATCH, COMMON, TEXTS, VARIANTS

MAPS = "maps.safetensors"
MAP_TOKENS = 8192


def prepare(
    folder: Path,
    *,
    text: Path | None,
    contexts: Sequence[int],
    gsm8k: Path | None = None,
    mmlu: Path | None = None,
    each: int = 10,
    maps: Path | None = None,
    seed: int = 0,
) -> list[str]:
    """Write all of the above into `folder`, which holds a tokenizer; the names written. A task
    that does not fit a context is left out. `each`: questions of a subject of `mmlu`;
    `maps`: a text whose end affine maps are learnt from, which must not be what is read here."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    written = []
    if text is not None:
        write_text(folder, tokenizer, text.read_text(encoding="utf-8"))
        written.append(TEXT)
    for context in contexts:
        for name, variant in VARIANTS.items():
            try:
                batches = make_batches(
                    variant.task,
                    tokenizer,
                    context,
                    texts=TEXTS,
                    questions=variant.questions,
                    batch=BATCH,
                    seed=seed,
                )
            except BadInput as error:
                print(f"{folder.name} {name} at {context}: {error.message}", flush=True)
                continue
            write_batches(folder / f"{name}-{context}.safetensors", batches)
            written.append(f"{name}-{context}.safetensors")
        items = CommonWords(COMMON).items(tokenizer, context, TEXTS, seed)
        path = folder / f"{COMMON}-{context}.json"
        path.write_text(
            json.dumps([[list(i.prompt_ids), list(i.answers), i.max_new_tokens] for i in items])
        )
        written.append(path.name)
    if gsm8k is not None and tokenizer.chat_template:
        lines = [json.loads(line) for line in gsm8k.read_text(encoding="utf-8").splitlines()]
        (folder / "gsm8k.json").write_text(json.dumps(prompts(tokenizer, lines)))
        written.append("gsm8k.json")
    if maps is not None:
        ids = tokenizer(maps.read_text(encoding="utf-8"), verbose=False)["input_ids"]
        held = {"ids": torch.tensor(ids[-MAP_TOKENS:], dtype=torch.int32)}
        save_file(held, folder / MAPS, metadata={"text": maps.name})
        written.append(MAPS)
    if mmlu is not None:
        lines = [json.loads(line) for line in mmlu.read_text(encoding="utf-8").splitlines()]
        (folder / "mmlu.json").write_text(json.dumps(choices.prompts(tokenizer, lines, each)))
        written.append("mmlu.json")
    return written


def maps_text(folder: Path) -> tuple[Tensor, str] | None:
    """Tokens [T] that a model's affine maps are learnt from, and the text's name; None where no
    other than the included prose was prepared."""
    path = folder / MAPS
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        return file.get_tensor("ids").long(), file.metadata()["text"]


def write_text(folder: Path, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    lead = [token for token in tokenizer("")["input_ids"] if token != tokenizer.eos_token_id]
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    held = {"ids": ids, "lead": lead}
    tensors = {name: torch.tensor(row, dtype=torch.int32) for name, row in held.items()}
    save_file(tensors, folder / TEXT)


def windows(folder: Path, length: int, count: int) -> Tensor:
    """At most `count` consecutive windows [N, length] of the text, int64, each behind the tokens
    that open a text. Raises BadInput where not one fits."""
    held = load_file(folder / TEXT)
    ids, lead = held["ids"].long(), held["lead"].long()
    step = length - lead.numel()
    count = min(count, ids.numel() // step)
    if count < 1:
        raise BadInput(f"a text of {ids.numel()} tokens, windows of {length}", "a longer text")
    rows = ids[: count * step].view(count, step)
    return torch.cat([lead.expand(count, -1), rows], dim=1)
