"""A process that measures what it is told to, one job at a time, on one GPU that many share.

Small models leave a GPU idle while Python launches the next kernel; a dozen processes fill the
gaps. A worker holds the models it was asked for in the weight formats it was asked for, and the
items, which the first to need them writes to a folder that all read.

Jobs and answers are plain tuples and dictionaries. An error of one configuration is an answer too;
after one that may have spoiled the GPU's state the worker ends, and the runner starts another.
"""

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

from ...planner.errors import BadInput, KVParetoError, one_line
from ...planner.formats.configuration import Configuration
from ...planner.models.spec import RecurrentState
from ...runtime import Session, load
from .items import GridQuestion, ItemBatch, make_batches
from .score import score
from .variants import BATCH, VARIANTS

Answer = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Run `config` on `model` at `context`, scored on `variants`."""

    model: str
    config: str
    context: int
    variants: tuple[str, ...]


class LoadedModels:
    """Models, items and what runs on them, loaded when first needed."""

    def __init__(
        self, folder: Path, device: str, seed: int, items: int, batch: int = BATCH
    ) -> None:
        """`items` of a variant, the questions of a text counted each; texts go by `batch`."""
        self.folder, self.device, self.seed = folder, device, seed
        self._count, self.batch = items, batch
        self._models: dict[tuple[str, int], Session] = {}
        self._items: dict[tuple[str, int, str], list[ItemBatch]] = {}

    def run(self, job: Job) -> Answer:
        """Right parts of every item of each variant that fits, and the seconds it took."""
        begun = time.perf_counter()
        config = Configuration.parse(job.config)
        base = self.model(job.model, config.weight_bits)
        right: dict[str, list[int]] = {}
        batches = {}
        for name in job.variants:
            try:
                batches[name] = self.items(job.model, job.context, name)
            except BadInput as error:
                if config.quantizes_kv or config.weight_bits < 16:
                    raise
                right[name] = []
                print(f"{job.model} {name} at {job.context}: {error.message}", flush=True)
        if batches:
            room = max(batch.room for several in batches.values() for batch in several)
            with Session(
                base.model,
                base.spec,
                config,
                tokens=-(-room // 64) * 64,
                batch=self.at_once(job.model),
                tokenizer=base.tokenizer,
                graphs=False,
            ) as session:
                for name, several in batches.items():
                    right[name] = score(session, several)
        return {"right": right, "seconds": round(time.perf_counter() - begun, 3)}

    def model(self, source: str, bits: int) -> Session:
        """A session of almost no room that holds the model with its weights at `bits`."""
        if (source, bits) not in self._models:
            self._models[source, bits] = load(
                source,
                Configuration(weight_bits=bits),
                context=8,
                output=1,
                device=self.device,
                offline=True,
            )
        return self._models[source, bits]

    def at_once(self, model: str) -> int:
        """Texts that are read together: recurrent states would read the padding of shorter ones."""
        mixers = self.model(model, 16).spec.mixer_counts
        return 1 if any(isinstance(mixer, RecurrentState) for mixer, _ in mixers) else self.batch

    def items(self, model: str, context: int, name: str) -> list[ItemBatch]:
        """A variant's batches on the device: read where they were written, else made."""
        key = model, context, name
        if key not in self._items:
            path = self.folder / f"{Path(model).name}-{context}-{name}.safetensors"
            if not path.exists():
                tokenizer = self.model(model, 16).tokenizer
                if tokenizer is None:
                    raise BadInput(f"{model} has no tokenizer", "give a folder with one")
                variant = VARIANTS[name]
                made = make_batches(
                    variant.task,
                    tokenizer,
                    context,
                    texts=variant.texts(self._count),
                    questions=variant.questions,
                    batch=self.at_once(model),
                    seed=self.seed,
                )
                write_batches(path, made)
            self._items[key] = read_batches(path, self.device)
        return self._items[key]


def write_batches(path: Path, batches: Sequence[ItemBatch]) -> None:
    """All tensors by name; the file appears whole or not at all."""
    held: dict[str, torch.Tensor] = {}
    for i, batch in enumerate(batches):
        held |= {f"{i}.texts": batch.texts, f"{i}.padding": batch.padding}
        for j, question in enumerate(batch.questions):
            for field in ("ids", "asks", "ends"):
                held[f"{i}.{j}.{field}"] = getattr(question, field).contiguous()
    partial = path.with_suffix(f".{os.getpid()}")
    save_file(held, partial)
    partial.replace(path)


def read_batches(path: Path, device: str) -> list[ItemBatch]:
    with safe_open(path, "pt", device=device) as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    batches: list[ItemBatch] = []
    while f"{len(batches)}.texts" in held:
        i = len(batches)
        questions: list[GridQuestion] = []
        while f"{i}.{len(questions)}.ids" in held:
            fields = (held[f"{i}.{len(questions)}.{f}"] for f in ("ids", "asks", "ends"))
            questions.append(GridQuestion(*fields))
        batches.append(ItemBatch(held[f"{i}.texts"], held[f"{i}.padding"], tuple(questions)))
    return batches


def work(bench: LoadedModels, jobs: Any, answer: Callable[[tuple[Job, Answer]], None]) -> None:
    """A process's life: jobs until there is None, each answered by (job, answer)."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    while (job := jobs.get()) is not None:
        try:
            answer((job, bench.run(job)))
        except KVParetoError as error:
            answer((job, {"error": one_line(str(error), 200)}))
        except Exception as error:
            answer((job, {"error": one_line(f"{type(error).__name__}: {error}", 200)}))
            traceback.print_exc()
            if bench.device == "cuda":
                return
