"""A process that measures: takes a group, loads what it needs, and works until nothing is free."""

import json
import time
import traceback

import torch
import transformers

from ...planner.errors import KVParetoError, one_line
from ...planner.formats.configuration import Configuration
from ...runtime import Session, load
from ..records.environment import environment
from .forced import key_bias_order
from .gguf_folder import SOURCE
from .jobs import CampaignSettings, Claims, JobGroup, configurations, groups, is_open
from .material import maps_text
from .measures import Measure, opened
from .rows import DIVERGENCE, Row, Writer

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

    def _open(self, group: JobGroup) -> Measure:
        kept = {key: model for key, model in self._models.items() if key[0] == group.name}
        self._models = kept  # one model at a time
        return opened(self, group)

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
        header: Row = {"environment": where, "source": source, "seed": self.settings.seed}
        if (found := maps_text(group.folder)) is not None:
            header["maps"] = {"text": found[1], "tokens": len(found[0])}
        return header


def work(settings: CampaignSettings, index: int, device: str, seconds: float, wait: bool) -> None:
    """A process's life."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    Worker(settings, index, device, seconds).run(wait=wait)
