"""The command `verify`. Heavy imports stay inside it."""

from pathlib import Path
from typing import Annotated

import typer

from ..planner.errors import one_line
from .command_line import show
from .options import (
    AsJson,
    Batch,
    Device,
    EngineName,
    ModelArgument,
    Offline,
    Output,
    TrustRemoteCode,
    chosen_model,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verify)


def verify(
    context: typer.Context,
    argument: ModelArgument = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A folder with weights, or a hub id."),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="File that `kvpareto plan --save` wrote.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="Configuration to run: w4a16-k4v4-g64+pc256.  [default: the recommended one]"
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Memory cap: 12GB. Several, separated by commas, give a table."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--context",
            help="Prompt tokens: 32k. Several are separated by commas.  [default: 32k, or the "
            "model's maximum less --output]",
        ),
    ] = None,
    output: Output = None,
    batch: Batch = "1",
    engine: EngineName = "kvpareto",
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights", help="Measure memory and time without a download; no accuracy."
        ),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Run one prefill, fewer tokens and fewer items."),
    ] = False,
    sweep: Annotated[
        int | None, typer.Option(help="Number of points of the plan's frontier to verify.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Task names, separated by commas, or all.  "
            "[default: needle-multikey,variables,arithmetic]"
        ),
    ] = None,
    items: Annotated[
        int | None, typer.Option(help="Items of each task.  [default: 32, quick 8]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the items. `calibrate` has 0.")] = 1,
    binary: Annotated[
        Path | None,
        typer.Option(
            help="llama-server to run, for --engine llama.cpp.  [default: the wheel xllamacpp]"
        ),
    ] = None,
    plugin: Annotated[
        bool,
        typer.Option("--plugin", help="With --engine vllm: attention is kvpareto's plugin."),
    ] = False,
    save: Annotated[Path | None, typer.Option(help="File for the receipt.")] = None,
    device: Device = None,
    offline: Offline = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> int:
    """Run a plan under its budget. Compare each prediction with the measurement.

    Exit code 0: verified. Exit code 1: not verified.

    \b
    kvpareto verify --plan plan.json
    kvpareto verify --plan plan.json -m ./my-model --json --save receipt.json
    kvpareto verify -m Qwen/Qwen3-8B --config w4a16-k4v4-g64+pc512 --budget 12GB \\
      --context 32k --random-weights
    kvpareto verify -m ./my-model --budget 8GB,12GB,16GB --context 8k,32k
    kvpareto verify --engine llama.cpp -m file.gguf --budget 4GB --context 2k
    kvpareto verify --engine vllm -m Qwen/Qwen3-8B --context 8k --batch 16 --random-weights
    kvpareto verify --engine vllm --plugin -m Qwen/Qwen3-8B --context 32k
    """
    if save is not None:
        from ..planner.whole_file import check_output

        check_output(save, plan)  # before minutes of measuring
    from .. import api

    document = api.verify(
        chosen_model(argument, model),
        plan=plan,
        config=config,
        budget=budget,
        context=prompt,
        output=output,
        batch=batch,
        engine=engine,
        random_weights=random_weights,
        quick=quick,
        sweep=sweep,
        tasks=tasks,
        items=items,
        seed=seed,
        binary=binary,
        plugin=plugin,
        device=device,
        offline=offline,
        trust_remote_code=trust_remote_code,
    )
    if save is not None:
        from ..report.output import write_document

        write_document(save, document)
        typer.echo(one_line(f"saved to {save}", 4096), err=True)
    show(
        context,
        as_json,
        document,
        "verify",
        "print_sweep" if "receipts" in document else "print_receipt",
    )
    return 0 if document["verified"] else 1
