"""`kvpareto calibrate`: from what was typed to a campaign, and from its rows to what is shown.

Progress and notices go to stderr; the summary is the command's result.
"""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..planner.accuracy.calibrations import ACCURACY, begin, fingerprint, folder_of
from ..planner.engines.kvpareto import KVPARETO
from ..planner.errors import BadInput, Interrupted
from ..planner.formats.configuration import Configuration
from ..planner.libraries import importing
from ..planner.load_model import load_model
from ..planner.models.spec import ModelSpec
from ..report.progress import Progress, progress
from .announcement import announce, announce_dequantized, announce_layers, announce_rows
from .design.options import (
    ASKED,
    DEFAULT_MODEL,
    CalibrationOptions,
    CalibrationSettings,
    check_comparable,
    settle,
)
from .execution.device import as_loaded, check_size, choose

if TYPE_CHECKING:
    from .design.campaign import Ending
    from .measure.bench import Bench
    from .measure.prompts import PromptTexts
    from .records.record_file import Environment, RecordFile


def calibrate(options: CalibrationOptions) -> dict[str, Any]:
    """Run the calibration; the document of its result.

    Raises BadInput, MissingDependency (no extra, no GPU for a large model), Interrupted.
    """
    started = time.monotonic()
    options.check()
    source = options.model or DEFAULT_MODEL
    spec = load_model(source, offline=options.offline)
    if not spec.runnable:
        raise BadInput(
            f"the kvpareto runtime cannot run {spec.name} ({spec.model_type})",
            "`kvpareto plan` works from published rows",
        )
    _check_installed()
    stored, spec = spec, KVPARETO.dequantized(spec)
    cluster = None
    if options.ray is not None:
        from .cluster.run import connect, device_of

        cluster = connect(options.ray)
        device = device_of(cluster, options.device)
    else:
        device = _device(options.device, spec)
        spec = as_loaded(spec, device)
    folder = folder_of(spec)
    begun = CalibrationSettings.read(folder) if options.resume else None
    asked = settle(options, spec, device, begun)
    material = _material(asked)
    from .before_loading import check_here, open_bench
    from .records.environment import environment
    from .records.profile_files import replace_file
    from .records.record_file import RecordFile, read_records

    here = environment(device if cluster is None else "cpu")
    if cluster is not None:
        check_here(source, spec, material, options)
    with (
        open_bench(source, spec, material, device, options)
        if cluster is None
        else nullcontext() as bench,
        RecordFile(folder) as file,
        progress(asked.runs) as shown,
    ):
        say = shown.say
        if not options.resume:
            _check_not_begun(spec, folder, file)
        check_comparable(asked, begun, file.records)
        if options.model is None:
            say(f"no --model: calibrating {DEFAULT_MODEL}, the small model that ships here")
        announce_dequantized(stored, spec, say)
        announce_rows(file, here, say)
        try:
            run = _Run(options, spec, source, asked, material, device, file, shown, started)
            if cluster is None:
                assert bench is not None
                ending = _measure_here(run, bench, folder, here)
            else:
                begin(folder, spec)
                replace_file(folder / ASKED, asked.to_text())
                ending, here = _measure_on(cluster, run)
            meta = _fit(run, folder, here, ending)
        except KeyboardInterrupt:
            kept = len(read_records(file.path))  # one may be on the disk that is not yet counted
            raise Interrupted(
                f"interrupted; {kept} rows are kept, and --resume continues"
            ) from None
        return _document(spec, folder, meta, file, ending)


@dataclass(frozen=True)
class _Run:
    """What a calibration measures with, here or on a cluster."""

    options: CalibrationOptions
    spec: ModelSpec
    source: str
    asked: CalibrationSettings
    material: "PromptTexts"
    device: str
    file: "RecordFile"
    shown: Progress
    started: float


def _check_not_begun(spec: ModelSpec, folder: Path, file: "RecordFile") -> None:
    measured = any((folder / name).exists() for name in (ASKED, ACCURACY))  # not verify alone
    if file.records and measured:
        raise BadInput(
            f"{spec.name} is calibrated already: {len(file.records)} rows in {folder}",
            "--resume continues it; to start again, move that folder away",
        )


def _fit(run: _Run, folder: Path, here: "Environment", ending: "Ending") -> dict[str, Any]:
    """Fit the model's accuracy and this GPU's times and memory; the profile's meta data."""
    from .design.campaign import write_profile
    from .design.without_fit import Ended, check_fitted
    from .fit.hardware.gpu import refit

    asked, records = run.asked, run.file.records
    run.shown.finish("fitting")
    meta = write_profile(folder, run.spec, records, here)
    refit(here.gpu, run.shown.say)
    took = time.monotonic() - run.started
    ended = Ended(ending.reason, asked.runs, asked.contexts, took, ending.one, ending.beside)
    check_fitted(folder, records, meta["fitted"], ended)
    return meta


def _measure_here(run: _Run, bench: "Bench", folder: Path, here: "Environment") -> "Ending":
    """On this machine's device, one configuration after another."""
    from .design.campaign import CalibrationPlan, Campaign
    from .design.fit_time import seconds_at_the_end
    from .measure.runner import ConfigurationRunner, ProfileIdentity
    from .records.profile_files import replace_file
    from .records.record_file import LAYERS, Record

    options, spec, file, shown, material = run.options, run.spec, run.file, run.shown, run.material
    reading = -time.monotonic()
    bench.load()
    reading += time.monotonic()
    begin(folder, spec)
    end = 0.0 if options.minutes is None else seconds_at_the_end()
    asked, forecast = announce(options, bench, run.asked, file.records, shown.say, run.started, end)
    until = run.started + 60 * options.minutes if options.minutes is not None else None
    shown.expect(forecast.seconds(asked.items, asked.contexts), until)
    replace_file(folder / ASKED, asked.to_text())

    def append(record: Record) -> None:
        file.append(record)
        if record.task != LAYERS:
            shown.advance(forecast.share(record.task, record.context, asked))

    runner = ConfigurationRunner(
        bench,
        ProfileIdentity(spec.name, fingerprint(spec), asked.seed, here),
        file.records,
        append,
        items=asked.items,
        notice=shown.say,
        kinds=material.harness.kinds if material.harness else None,
    )
    announce_layers(runner.probe(), shown.say)
    if options.affine:
        shown.say(bench.learn_affine(folder))

    def step(number: int, config: Configuration) -> None:
        shown.step(str(config), number)

    def learn() -> None:
        if not options.affine:  # else they were learnt first
            shown.say(bench.learn_affine(folder))

    plan = CalibrationPlan(
        asked.contexts,
        (16, 4) if run.device == "cuda" else (16,),
        asked.runs,
        options.minutes,
        asked.tolerance,
        asked.seed,
        {at: forecast.seconds(asked.items, (at,)) for at in asked.contexts},
        time.monotonic() - run.started,
        end,
        reading,
    )
    return Campaign(spec, plan, runner, file.records, step, learn=learn).run()


def _measure_on(cluster: Mapping[str, float], run: _Run) -> "tuple[Ending, Environment]":
    """Over a Ray cluster's cards; this process alone writes rows."""
    from .cluster.run import measure

    def step(number: int, config: Configuration) -> None:
        run.shown.step(str(config), number)

    return measure(
        run.options,
        run.spec,
        run.source,
        run.asked,
        run.material,
        run.device,
        cluster,
        run.file,
        step,
        run.shown.say,
        run.started,
    )


def _material(asked: CalibrationSettings) -> "PromptTexts":
    """What is measured on. Raises BadInput for unknown tasks and files that cannot be read,
    MissingDependency where the harness is asked for and not installed."""
    from . import tasks
    from .measure.prompts import PromptTexts
    from .tasks.lm_eval import HarnessTasks, split_names

    generated, others = split_names(asked.tasks)
    return PromptTexts(
        contexts=asked.contexts,
        tasks=tuple(task.name for task in tasks.find(generated)) if generated else (),
        items=asked.items,
        seed=asked.seed,
        text=Path(asked.text) if asked.text else None,
        haystack=tasks.read_haystack(asked.haystack) if asked.haystack else None,
        harness=HarnessTasks(others, asked.seed) if others else None,
    )


def _document(
    spec: ModelSpec, folder: Path, meta: dict[str, Any], file: "RecordFile", ending: "Ending"
) -> dict[str, Any]:
    from .design.findings import findings_of
    from .records.record_file import LAYERS

    shown = ("config", "context", "task", "outcome", "score", "retention", "retention_sd")
    rows = [record for record in file.records if record.task != LAYERS]
    return {
        "schema": 1,
        "model": spec.name,
        "folder": str(folder),
        "reason": ending.reason,
        "configurations": meta["configurations"],
        "failed": meta["failed"],
        "expected_error": ending.expected_error,
        "expected_everywhere": ending.expected_everywhere,
        "held_out": meta["held_out"],
        "protect": meta["protect"],
        "breaks": meta["breaks"],
        "broken": meta["broken"],
        "fitted": meta["fitted"],
        "findings": findings_of(meta),
        "rows": [{name: getattr(record, name) for name in shown} for record in rows],
    }


def _check_installed() -> None:
    """Raises MissingDependency without the extra, and where a library of it is broken."""
    with importing("calibrate", "calibrate"):
        import sklearn  # noqa: F401 - the fit needs it, and says so before anything is measured
        import torch  # noqa: F401
        import transformers  # noqa: F401


def _device(asked: str | None, spec: ModelSpec) -> str:
    """cpu or cuda. Raises MissingDependency without a GPU that is needed."""
    device = choose(asked)
    check_size(
        spec,
        device,
        "calibrate",
        "run this on a machine with a CUDA GPU; `kvpareto profiles export` brings the result",
    )
    return device
