"""A process that measures: takes a group, loads what it needs, and works until nothing is free."""

import json
import time
import traceback
from typing import Any

import torch
import transformers

from ... import profiles
from ...planner.accuracy.calibrations import begin, folder_of
from ...planner.errors import KVParetoError, one_line
from ...planner.formats.configuration import Configuration
from ...runtime import Session, load
from ...runtime.cache.affine import write_maps
from ..grid.reading import encode_items
from ..measure.affine_maps import TOKENS as AFFINE_TOKENS
from ..measure.affine_maps import learn_maps
from ..measure.divergence import text_windows
from ..records.environment import environment
from . import choices, grade_school
from .forced import ForcingPlan, Teacher, key_bias_order, sessions_room, single
from .gguf_folder import SOURCE
from .jobs import (
    FULL,
    GSM8K,
    TASK_CHUNK,
    CampaignSettings,
    Claims,
    JobGroup,
    configurations,
    groups,
    is_open,
)
from .material import windows
from .rows import CHOICES, DIVERGENCE, Row, Writer, read_rows
from .tasks import BATCH, COMMON, TaskExam, available, chosen

TOKENS = 65536
"""Of text that a configuration reads at a context, in at least 3 and at most 16 windows."""
PLACES = 4096
"""Places compared in the windows' bodies, all together."""
PAUSE = 2.0


class Worker:
    """One of many; `index` sets where it begins, so that they spread over the groups."""

    def __init__(self, settings: CampaignSettings, index: int, device: str, seconds: float) -> None:
        self.settings, self.index, self.device = settings, index, device
        self._until = time.monotonic() + seconds
        self._models: dict[tuple[str, int], Session] = {}
        self._outliers: dict[str, list[int]] = {}
        self._writer = Writer(settings.out / f"rows-{index}.jsonl")
        self.claims = Claims(settings)

    def run(self, *, wait: bool = False) -> int:
        """Points measured until time is up or, unless `wait` says that models may still come,
        nothing is left."""
        added = 0
        while time.monotonic() < self._until:
            self.claims.refresh()
            group = self._next_group()
            if group is not None:
                added += self._through(group)
            elif wait:
                time.sleep(PAUSE)
            else:
                break
        return added

    def _next_group(self) -> JobGroup | None:
        open_groups = []
        for group in groups(self.settings):
            wanted = configurations(group, self.settings, self._outliers_of(group))
            if is_open(group, self.claims, wanted):
                open_groups.append(group)
        return open_groups[self.index % min(len(open_groups), 8)] if open_groups else None

    def _through(self, group: JobGroup) -> int:
        """All jobs of a group that this worker gets."""
        measure, added = None, 0
        wanted = configurations(group, self.settings, self._outliers_of(group))
        if group.kind != DIVERGENCE and not self.claims.is_done(group.key(wanted[0])):
            wanted = wanted[:1]
        for config in wanted:
            if time.monotonic() > self._until:
                break
            if not self.claims.take(group.key(config)):
                continue
            begun = time.monotonic()
            row: Row = dict(
                zip(("model", "kind", "config", "context"), group.key(config), strict=True)
            )
            try:
                if measure is None:
                    measure = self._open(group)
                row |= measure.row(config)
            except KVParetoError as error:
                row["error"] = one_line(str(error), 200)
            except Exception as error:
                row["error"] = one_line(f"{type(error).__name__}: {error}", 300)
                traceback.print_exc()
                if self.device == "cuda":  # its state may be spoiled: another process goes on
                    self._writer.write(self._header(group), row)
                    raise SystemExit(1) from None
            row["seconds"] = round(time.monotonic() - begun, 2)
            self._writer.write(self._header(group), row)
            added += "error" not in row
        return added

    def _open(self, group: JobGroup) -> "_Divergence | _Tasks | _Choices":
        kept = {key: model for key, model in self._models.items() if key[0] == group.name}
        self._models = kept  # one model at a time
        if group.kind == DIVERGENCE:
            return _Divergence(self, group)
        return _Choices(self, group) if group.kind == CHOICES else _Tasks(self, group)

    def model(self, group: JobGroup, bits: int) -> Session:
        """A session of almost no room that holds the model with its weights at `bits`."""
        key = group.name, bits
        if key not in self._models:
            self._models[key] = load(
                str(group.folder),
                Configuration(weight_bits=bits),
                context=8,
                output=1,
                device=self.device,
                offline=True,
            )
        return self._models[key]

    def _outliers_of(self, group: JobGroup) -> list[int]:
        """Layers by the size of their key bias, read off the file; none where there are none."""
        if group.name not in self._outliers:
            self._outliers[group.name] = key_bias_order(group.folder)
        return self._outliers[group.name]

    def _header(self, group: JobGroup) -> Row:
        where = environment(self.device).model_dump()
        where["commit"] = self.settings.commit or where["commit"]
        path = group.folder / SOURCE
        source = json.loads(path.read_text()) if path.exists() else {"model": group.name}
        return {"environment": where, "source": source, "seed": self.settings.seed}


class _Divergence:
    """A model's teacher at a context, and rows against it."""

    def __init__(self, worker: Worker, group: JobGroup) -> None:
        self._worker, self._group = worker, group
        count = worker.settings.windows or min(16, max(3, TOKENS // group.context))
        tail = 128 if group.context < 16384 else 256
        text = windows(group.folder, group.context, count)
        places = (worker.settings.places or PLACES) // len(text)
        plan = ForcingPlan.of(text, min(tail, group.context // 4), places)
        with single(worker.model(group, 16), group.spec, FULL, group.context) as session:
            self._teacher = Teacher(session, plan)
        if any(config.affine for config in configurations(group, worker.settings, ())):
            _learn_affine(worker.model(group, 16))

    def row(self, config: Configuration) -> Row:
        model = self._worker.model(self._group, config.weight_bits)
        with single(model, self._group.spec, config, self._group.context) as session:
            return self._teacher.compare(session)


def _learn_affine(model: Session) -> None:
    """Affine maps from the included prose, beside the model's calibration."""
    folder = folder_of(model.spec)
    folder.mkdir(parents=True, exist_ok=True)
    begin(folder, model.spec)
    prose = profiles.read("calibration_text.md")
    assert model.tokenizer is not None  # a measured folder has one
    tokens = text_windows(model.tokenizer, prose, AFFINE_TOKENS, 1)[0]
    write_maps(folder, learn_maps(model, tokens))


class _Tasks:
    """A model's tasks at a context, or GSM8K, and scores on those that it is able of."""

    def __init__(self, worker: Worker, group: JobGroup) -> None:
        self._worker, self._group = worker, group
        if any(config.affine for config in configurations(group, worker.settings, ())):
            _learn_affine(worker.model(group, 16))
        full = group.key(FULL.with_chunk(TASK_CHUNK))
        self._names = [GSM8K] if group.context == 0 else available(group.folder, group.context)
        for _, row in read_rows(worker.settings.out.glob("*.jsonl")):
            if (row["model"], row["kind"], row["config"], row["context"]) == full:
                scores = {name: task["score"] for name, task in row["tasks"].items()}
                self._names = [GSM8K] if group.context == 0 else chosen(scores)
        self._exams = {
            name: TaskExam(group.folder, name, group.context, worker.device)
            for name in self._names
            if name != GSM8K
        }
        self._gsm8k: dict[str, Any] = {}
        if GSM8K in self._names:
            self._gsm8k = json.loads((group.folder / "gsm8k.json").read_text())

    def row(self, config: Configuration) -> Row:
        rooms = [exam.room for exam in self._exams.values()]
        if self._gsm8k:
            rooms.append(grade_school.room(self._gsm8k))
        if not rooms:
            return {"tasks": {}}
        base = self._worker.model(self._group, config.weight_bits)
        task_rows: Row = {}
        with Session(
            base.model,
            self._group.spec,
            config,
            tokens=sessions_room(max(rooms)),
            batch=grade_school.BATCH if self._gsm8k else BATCH,
            tokenizer=base.tokenizer,
            graphs=bool(self._gsm8k) or COMMON in self._exams,
        ) as session:
            for name, exam in self._exams.items():
                task_rows[name] = _task(exam.digits(session), exam.parts)
            if self._gsm8k:
                task_rows[GSM8K] = _task(grade_school.digits(session, self._gsm8k), 1)
        return {"tasks": task_rows}


class _Choices:
    """Questions with four answers, and scores on them."""

    def __init__(self, worker: Worker, group: JobGroup) -> None:
        self._worker, self._group = worker, group
        if any(config.affine for config in configurations(group, worker.settings, ())):
            _learn_affine(worker.model(group, 16))
        self._held = json.loads((group.folder / "mmlu.json").read_text())

    def row(self, config: Configuration) -> Row:
        base = self._worker.model(self._group, config.weight_bits)
        with Session(
            base.model,
            self._group.spec,
            config,
            tokens=sessions_room(choices.room(self._held)),
            batch=choices.BATCH,
            tokenizer=base.tokenizer,
            graphs=False,
        ) as session:
            return {"tasks": {choices.MMLU: _task(choices.digits(session, self._held), 1)}}


def _task(digits: list[int], parts: int) -> Row:
    score = sum(digits) / (len(digits) * parts)
    return {"score": round(score, 5), "parts": parts, "items": encode_items(digits)}


def work(settings: CampaignSettings, index: int, device: str, seconds: float, wait: bool) -> None:
    """A process's life."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    Worker(settings, index, device, seconds).run(wait=wait)
