"""The command `calibrate`. Heavy imports stay inside it."""

from pathlib import Path
from typing import Annotated

import typer

from .command_line import show
from .options import (
    AsJson,
    Device,
    ModelArgument,
    Offline,
    TrustRemoteCode,
    chosen_model,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(calibrate)


def calibrate(
    context: typer.Context,
    argument: ModelArgument = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A folder with weights, or a hub id.  [default: recall, included]",
        ),
    ] = None,
    runs: Annotated[
        int | None, typer.Option(help="Maximum number of configurations.  [default: 16]")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Maximum time in minutes.")] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Task names, separated by commas, or all. lm_eval:NAME is a task of "
            "lm-evaluation-harness.  "
            "[default: needle-multikey,variables,arithmetic]"
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--context",
            help="Prompt tokens, separated by commas.  [default: 4k,16k; 512,1k on a CPU]",
        ),
    ] = None,
    items: Annotated[
        int | None,
        typer.Option(help="Items of each task.  [default: 32, or fewer within --minutes]"),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="Text file for the divergence.  [default: the included text]"),
    ] = None,
    haystack: Annotated[
        Path | None,
        typer.Option(help="Text file in which facts are hidden.  [default: the included text]"),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Stop when the frontier's expected error is below this.  [default: 0.005]"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the items and of the chosen configurations.  [default: 0]"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an earlier run. New options replace its options."),
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Measure on a Ray cluster, one worker for each GPU. Give its address, auto, "
            "or local for this machine."
        ),
    ] = None,
    affine: Annotated[
        bool,
        typer.Option(
            "--affine",
            help="Learn affine maps of keys and values first, from the text: +affine.",
        ),
    ] = False,
    device: Device = None,
    offline: Offline = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model under chosen configurations. `plan` then uses the result.

    \b
    kvpareto calibrate --minutes 2                # tries the included model
    kvpareto calibrate -m ./my-model --runs 12
    kvpareto calibrate -m Qwen/Qwen3-8B --context 4k,16k --minutes 30
    kvpareto calibrate -m Qwen/Qwen3-8B --context 4k,16k --runs 40 --resume
    kvpareto calibrate -m ./my-model --affine     # then run --config w16a16-k2v2+affine+clip70
    kvpareto calibrate -m Qwen/Qwen3-8B --ray auto --runs 64  # on a Ray cluster
    """
    from .. import api

    document = api.calibrate(
        chosen_model(argument, model),
        runs=runs,
        minutes=minutes,
        tasks=tasks,
        context=prompt,
        items=items,
        text=text,
        haystack=haystack,
        tolerance=tolerance,
        seed=seed,
        resume=resume,
        ray=ray,
        affine=affine,
        device=device,
        offline=offline,
        trust_remote_code=trust_remote_code,
    )
    show(context, as_json, document, "calibration", "print_calibration")
