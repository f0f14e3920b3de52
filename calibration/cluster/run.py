"""`calibrate --ray` from a cluster's address to a campaign's end."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ...planner.accuracy.calibrations import fingerprint
from ...planner.errors import BadInput
from ...planner.models.spec import ModelSpec
from ..announcement import announce_layers
from ..design.campaign import CalibrationPlan, Ending
from ..design.fit_time import seconds_at_the_end
from ..design.options import CalibrationOptions, CalibrationSettings
from ..measure.layer_sensitivity import Sensitivity
from ..measure.rows import ProfileIdentity, RowMaker
from ..records.record_file import LAYERS, Environment, RecordFile, parse_record
from .campaign import PROBE, ClusterCampaign
from .worker import bench_maker
from .workers import Workers, connect

if TYPE_CHECKING:
    from ...planner.formats.configuration import Configuration
    from ..measure.prompts import PromptTexts

__all__ = ["connect", "device_of", "measure"]


def device_of(resources: Mapping[str, float], asked: str | None) -> str:
    """cuda where the cluster has cards. Raises BadInput where asked for and absent."""
    cards = resources.get("GPU", 0) >= 1
    if asked == "cuda" and not cards:
        raise BadInput("the Ray cluster has no GPU", "use --device cpu, or another --ray address")
    return asked or ("cuda" if cards else "cpu")


def measure(
    options: CalibrationOptions,
    spec: ModelSpec,
    source: str,
    asked: CalibrationSettings,
    material: "PromptTexts",
    device: str,
    resources: Mapping[str, float],
    file: RecordFile,
    step: "Callable[[int, Configuration], None]",
    say: Callable[[str], None],
    started: float,
) -> tuple[Ending, Environment]:
    """Measure over the cluster; how it ended, and where its first worker is. The minutes count from
    `started`, by the clock of time.monotonic.

    Raises NoWorkers, and what a worker raises.
    """
    if material.harness is not None:
        raise BadInput(
            "the evaluation harness's tasks are not measured over Ray", "leave out --ray, or them"
        )
    gpu = device == "cuda"
    most = int(resources.get("GPU" if gpu else "CPU", 1))
    count = max(1, min(most, asked.runs))
    make = bench_maker(source, material, device, options.offline, options.trust_remote_code)
    identity = spec.name, fingerprint(spec), asked.seed
    workers = Workers.of(count, gpu, make, *identity, asked.items, device)
    say(f"{count} workers on a Ray cluster, a {'card' if gpu else 'processor'} each")
    try:
        workers.wait_for_one()
        here = Environment.model_validate_json(workers.environment)
        _probe(workers, file, say)
        weights = (16, 4) if gpu else (16,)
        end = 0.0 if options.minutes is None else seconds_at_the_end()
        plan = CalibrationPlan(
            asked.contexts,
            weights,
            asked.runs,
            options.minutes,
            asked.tolerance,
            asked.seed,
            spent=time.monotonic() - started,
            end=end,
        )
        rows = RowMaker(ProfileIdentity(*identity, here), {})
        campaign = ClusterCampaign(spec, plan, workers, rows, file.records, file.append, step, say)
        return campaign.run(), here
    finally:
        workers.close()


def _probe(
    workers: Workers,
    file: RecordFile,
    say: Callable[[str], None],
) -> None:
    """The row of the layers, before anything is chosen; left out where its worker is lost."""
    if not any(record.task == LAYERS for record in file.records):
        workers.give(PROBE, (), probe=True)
        while workers.busy:
            for event in workers.events():
                if event.kind == "row":
                    file.append(parse_record(event.row, "a worker's row"))
    announce_layers(Sensitivity.of(file.records), say)
    workers.wait_for_one()
