"""What a worker measures of a model at a context: text against 16 bits, tasks, and choices.

Each is opened once, with all that its configurations share, and then gives a row for each.
"""

import json
from typing import Any, Protocol

from ... import profiles
from ...planner.accuracy.calibrations import begin, folder_of
from ...planner.formats.configuration import Configuration
from ...runtime import Session
from ...runtime.cache.affine import write_maps
from ..grid.reading import encode_items
from ..measure.affine_maps import TOKENS as AFFINE_TOKENS
from ..measure.affine_maps import learn_maps
from ..measure.divergence import text_windows
from . import choices, grade_school
from .forced import ForcingPlan, Teacher, sessions_room, single
from .jobs import FULL, GSM8K, TASK_CHUNK, CampaignSettings, JobGroup, configurations
from .material import maps_text, windows
from .rows import CHOICES, DIVERGENCE, Row, read_rows
from .tasks import BATCH, COMMON, TaskExam, available, chosen

TOKENS = 65536
"""Of text that a configuration reads at a context, in at least 3 and at most 16 windows."""
PLACES = 4096
"""Places compared in the windows' bodies, all together."""


class Host(Protocol):
    """Who measures: settings, a device, and models that are kept loaded (worker.py)."""

    settings: CampaignSettings
    device: str

    def model(self, group: JobGroup, bits: int) -> Session: ...


class Measure(Protocol):
    """Gives a row's values for each configuration."""

    def row(self, config: Configuration) -> Row: ...


def opened(worker: Host, group: JobGroup) -> Measure:
    """What measures a group."""
    if any(config.affine for config in configurations(group, worker.settings, ())):
        _learn_affine(worker.model(group, 16), group)
    if group.kind == DIVERGENCE:
        return _Divergence(worker, group)
    return _Choices(worker, group) if group.kind == CHOICES else _Tasks(worker, group)


class _Divergence:
    """A model's teacher at a context, and rows against it."""

    def __init__(self, worker: Host, group: JobGroup) -> None:
        self._worker, self._group = worker, group
        count = worker.settings.windows or min(16, max(3, TOKENS // group.context))
        tail = 128 if group.context < 16384 else 256
        text = windows(group.folder, group.context, count)
        places = (worker.settings.places or PLACES) // len(text)
        plan = ForcingPlan.of(text, min(tail, group.context // 4), places)
        with single(worker.model(group, 16), group.spec, FULL, group.context) as session:
            self._teacher = Teacher(session, plan)

    def row(self, config: Configuration) -> Row:
        model = self._worker.model(self._group, config.weight_bits)
        with single(model, self._group.spec, config, self._group.context) as session:
            return self._teacher.compare(session)


def _learn_affine(model: Session, group: JobGroup) -> None:
    """Affine maps beside the model's calibration, from the text that was prepared for them or else
    the included prose."""
    folder = folder_of(model.spec)
    folder.mkdir(parents=True, exist_ok=True)
    begin(folder, model.spec)
    found = maps_text(group.folder)
    if found is None:
        assert model.tokenizer is not None  # a measured folder has one
        prose = profiles.read("calibration_text.md")
        found = text_windows(model.tokenizer, prose, AFFINE_TOKENS, 1)[0], ""
    write_maps(folder, learn_maps(model, found[0]))


class _Tasks:
    """A model's tasks at a context, or GSM8K, and scores on those that it is able of."""

    def __init__(self, worker: Host, group: JobGroup) -> None:
        self._worker, self._group = worker, group
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

    def __init__(self, worker: Host, group: JobGroup) -> None:
        self._worker, self._group = worker, group
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
