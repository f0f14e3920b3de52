"""What there is to do, in groups that share what is loaded, and who takes what.

A group is a model at a context, for the divergence or for tasks. Workers are separate processes
that share nothing but a folder: a worker takes a job by creating a file of its name, which only
one can. Nothing is dealt out, so workers may come and go, and models may arrive later.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...planner.formats.configuration import Configuration
from ...planner.models.read_config import read_model
from ...planner.models.spec import ModelSpec
from .design import divergence_design, marks
from .gguf_folder import SOURCE, TEXT, WEIGHTS
from .rows import CHOICES, DIVERGENCE, TASKS, Key, read_rows
from .same_bytes import same_bytes_design, tasked_design
from .tasks import available

GSM8K = "gsm8k"
TASK_CHUNK = 1024
"""Prefill chunk of the tasks, which bounds what a batch of long texts takes."""
FULL = Configuration()
SOME, FEW = 110, 60
"""Configurations at contexts other than the first, and at those of LONG tokens and more."""
LONG = 32768


@dataclass(frozen=True)
class CampaignSettings:
    """Where models are and rows go; contexts and size of the divergence's design."""

    models: Path
    out: Path
    contexts: tuple[int, ...]
    configurations: int | None = None
    seed: int = 0
    commit: str | None = None
    design: str = "divergence"
    """design.py's, or "bytes", same_bytes.py's."""
    windows: int | None = None
    places: int | None = None
    """Of text, and compared in their bodies; None: what worker.py says."""
    formats: tuple[str, ...] = ()
    """Configurations of the divergences in the place of a design's."""
    tasked: tuple[str, ...] = ()
    """Those that are scored on tasks, behind the unquantized one, likewise."""


@dataclass(frozen=True)
class JobGroup:
    """One model at one context. `context` 0 with kind TASKS: GSM8K; with CHOICES: MMLU."""

    folder: Path
    name: str
    spec: ModelSpec
    kind: str
    context: int

    def key(self, config: Configuration) -> Key:
        return self.name, self.kind, str(config), self.context


def model_name(folder: Path) -> str:
    """The hub id that `source.json` gives; else the folder's name."""
    path = folder / SOURCE
    return str(json.loads(path.read_text())["model"]) if path.exists() else folder.name


def groups(settings: CampaignSettings) -> list[JobGroup]:
    """Of all models that are there by now, in order of importance."""
    ranked: list[tuple[int, int, JobGroup]] = []
    folders = sorted(path for path in settings.models.iterdir() if (path / WEIGHTS).exists())
    for number, folder in enumerate(folders):
        content = json.loads((folder / "config.json").read_text())
        name = model_name(folder)
        spec = read_model(content, name)
        longest = int(content.get("max_position_embeddings", LONG))
        contexts = [c for c in settings.contexts if c <= longest]
        if not (folder / TEXT).exists():
            contexts = []  # tasks alone
        elif longest < max(settings.contexts) and longest not in contexts:
            contexts.append(longest)
        for rank, context in enumerate(contexts):
            ranked.append((2 * rank, number, JobGroup(folder, name, spec, DIVERGENCE, context)))
        asked = sorted({int(p.stem.rpartition("-")[2]) for p in folder.glob("needle-*-*")})
        for rank, context in enumerate(asked):
            ranked.append((2 * rank + 1, number, JobGroup(folder, name, spec, TASKS, context)))
        if (folder / "gsm8k.json").exists():
            ranked.append((2, number, JobGroup(folder, name, spec, TASKS, 0)))
        if (folder / "mmlu.json").exists():
            ranked.append((3, number, JobGroup(folder, name, spec, CHOICES, 0)))
    return [group for _, _, group in sorted(ranked, key=lambda each: each[:2])]


def configurations(
    group: JobGroup, settings: CampaignSettings, outliers: Sequence[int]
) -> list[Configuration]:
    """What the group measures. Tasks begin with the unquantized model."""
    if group.kind != DIVERGENCE:
        chosen = tasked_design() if settings.design == "bytes" else [FULL, *marks()]
        if settings.tasked:
            chosen = [FULL, *(Configuration.parse(text) for text in settings.tasked)]
        return [config.with_chunk(TASK_CHUNK) for config in chosen][: settings.configurations]
    if settings.formats:
        return [Configuration.parse(text) for text in settings.formats]
    if settings.design == "bytes":
        return same_bytes_design()[: settings.configurations]
    layers = group.spec.layers
    head = next(size for layer in layers if (size := _head(layer)))
    design = divergence_design(head, len(layers), outliers)
    limit = FEW if group.context >= LONG else SOME
    if group.context == settings.contexts[0]:
        limit = len(design)
    return design[:limit][: settings.configurations]


def _head(layer: object) -> int | None:
    from ...runtime.cache.layer_shape import layer_shape

    shape = layer_shape(layer, 0, 64, "")  # type: ignore[arg-type]
    return None if shape is None else shape.key_dim


class Claims:
    """Jobs that are done or taken, over all workers of a run."""

    def __init__(self, settings: CampaignSettings) -> None:
        self._out = settings.out
        self._taken = settings.out / "claims"
        self._taken.mkdir(parents=True, exist_ok=True)
        self._done: dict[Key, bool] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what all workers have written by now."""
        for _, row in read_rows(self._out.glob("*.jsonl")):
            self._done[row["model"], row["kind"], row["config"], row["context"]] = True

    def is_done(self, key: Key) -> bool:
        return key in self._done

    def is_free(self, key: Key) -> bool:
        return key not in self._done and not (self._taken / _digest(key)).exists()

    def take(self, key: Key) -> bool:
        """Whether the job is this worker's now."""
        if key in self._done:
            return False
        try:
            os.close(os.open(self._taken / _digest(key), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def is_open(group: JobGroup, claims: Claims, wanted: Sequence[Configuration]) -> bool:
    """Whether a worker that comes to the group now finds something to do. Tasks wait for the
    unquantized model's scores, which say what the model is able of."""
    if group.kind != DIVERGENCE and not claims.is_done(group.key(wanted[0])):
        return claims.is_free(group.key(wanted[0])) and bool(
            group.context == 0 or available(group.folder, group.context)
        )
    return any(claims.is_free(group.key(config)) for config in wanted)


def _digest(key: Key) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
