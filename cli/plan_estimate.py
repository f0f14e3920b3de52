"""`plan` and `estimate`: what each option is, and the call it makes."""

from pathlib import Path
from typing import Annotated

import typer

from ..planner.errors import BadInput, one_line
from ..report import completion
from .command_line import show
from .options import (
    AsJson,
    Batch,
    Context,
    Dtype,
    EngineName,
    FullLogits,
    Gpu,
    Model,
    ModelArgument,
    Offline,
    Output,
    ParallelSizes,
    TaskKind,
    Users,
    chosen_model,
)

TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="No effect: planning runs no code of a checkpoint."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(plan)
    app.command()(estimate)


def plan(
    context: typer.Context,
    argument: ModelArgument = None,
    model: Model = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Memory that a run may use: 12GB, 11.5GiB.  [default: the memory of --gpu]"
        ),
    ] = None,
    prompt: Context = None,
    output: Output = None,
    batch: Batch = "1",
    users: Users = None,
    gpu: Gpu = None,
    gpus: Annotated[
        str | None, typer.Option(help="Number of GPUs: 4, or auto for the fewest that suffice.")
    ] = None,
    parallel: ParallelSizes = None,
    ttft: Annotated[str | None, typer.Option(help="Longest time to the first token: 2s.")] = None,
    tpot: Annotated[
        str | None, typer.Option(help="Longest time for each further token: 30ms.")
    ] = None,
    reserve: Annotated[
        str | None,
        typer.Option(
            help="GPU memory that is left to other programs.  [default: 500MB on consumer cards]"
        ),
    ] = None,
    ram: Annotated[
        str | None,
        typer.Option(
            help="Host memory that may hold a part of the model, for llama.cpp: 64GB. Without "
            "--gpu the plan is for the CPU."
        ),
    ] = None,
    dtype: Dtype = None,
    max_loss: Annotated[
        str | None,
        typer.Option(
            help="Largest loss of score, at the lower end of the interval: 3%.  [default: 10%]"
        ),
    ] = None,
    task: TaskKind = None,
    accept_risk: Annotated[
        bool,
        typer.Option(
            "--accept-risk", help="Recommend even if the loss at the lower end exceeds --max-loss."
        ),
    ] = False,
    objective: Annotated[
        str,
        typer.Option(
            help="What to optimize: accuracy, latency or memory.",
            autocompletion=completion.objectives,
        ),
    ] = "accuracy",
    engine: EngineName = "kvpareto",
    max_context: Annotated[
        bool,
        typer.Option("--max-context", help="Show the longest contexts that fit."),
    ] = False,
    full_logits: FullLogits = False,
    snippet: Annotated[
        str | None,
        typer.Option(help="Also print how to start the server: docker or k8s (Kubernetes)."),
    ] = None,
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="Show terms, reasons, next steps and frontier on a narrow terminal too.",
        ),
    ] = False,
    save: Annotated[Path | None, typer.Option(help="Write the plan as JSON to this file.")] = None,
    offline: Offline = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Recommend a configuration for a model within a memory budget.

    \b
    kvpareto plan -m Qwen/Qwen2.5-7B-Instruct --budget 12GB --context 32k
    kvpareto plan -m meta-llama/Llama-3.1-8B-Instruct --gpu 4090 --max-loss 2%
    kvpareto plan -m ./my-model --budget 16GiB --objective latency --gpu L4
    kvpareto plan -m google/gemma-3-4b-it --budget 8GB --max-context
    kvpareto plan -m Qwen/Qwen3-8B --budget 24g --json --save plan.json
    kvpareto plan -m openai/gpt-oss-20b --engine llama.cpp --gpu 4060 --ram 32GB
    kvpareto plan -m Qwen/Qwen3-8B --engine vllm --gpu H100 --users 16 --context 16k
    """
    from .. import api

    if save is not None:
        from ..planner.whole_file import check_output

        check_output(save)
    document = (api.max_context if max_context else api.plan)(
        _model(argument, model),
        budget=budget,
        context=prompt,
        output=output,
        batch=batch,
        users=users,
        gpu=gpu,
        gpus=gpus,
        parallel=parallel,
        snippet=snippet,
        ttft=ttft,
        tpot=tpot,
        reserve=reserve,
        ram=ram,
        dtype=dtype,
        max_loss=max_loss,
        task=task,
        accept_risk=accept_risk,
        objective=objective,
        engine=engine,
        full_logits=full_logits,
        offline=offline,
    )
    del trust_remote_code  # a model is planned from its config alone
    if save is not None:
        from ..report.output import write_document

        write_document(save, document)
        typer.echo(one_line(f"saved to {save}", 4096), err=True)
    printer = "print_plan_details" if details else "print_plan"
    show(context, as_json, document, "terminal", "print_longest" if max_context else printer)


def estimate(
    context: typer.Context,
    config: Annotated[
        str,
        typer.Option(
            help="The configuration, for example w4a16-k4v4-g64+pc256. Its parts are listed above."
        ),
    ],
    argument: ModelArgument = None,
    model: Model = None,
    prompt: Context = None,
    output: Output = None,
    batch: Batch = "1",
    users: Users = None,
    gpu: Gpu = None,
    parallel: ParallelSizes = None,
    dtype: Dtype = None,
    task: TaskKind = None,
    engine: EngineName = "kvpareto",
    full_logits: FullLogits = False,
    offline: Offline = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Show the memory and latency of one configuration, term by term.

    \b
    kvpareto estimate -m Qwen/Qwen3-8B --config w4a16-k4v4-g64+pc256
    kvpareto estimate -m ./config.json --config w16a16-k16v16 --engine transformers

    \b
    The parts of a configuration. A part that is not given has its default.
      w4a16         weights at 16, 8 or 4 bits, or a checkpoint's own; activations at 16
      w4a8          prompts' activations at 8 bits, beside 4-bit weights
      -k4v2         keys and values at 16, 8, 6, 5, 4, 3 or 2 bits
      -kfp8vnf4     8-bit floats; tables of levels: nf4, lloyd3, lloyd2; blocks: nvfp4, mxfp4
      -g64          one scale for 32, 64 or 128 channels; default: one for a head
      -kc -kc128    keys per channel, in blocks of 32 or 128 tokens
      -pb128 -pt    tiles of 128 tokens; one scale for a whole tensor
      +smooth +rot  K-smoothing; Hadamard rotation
      +affine       maps that `calibrate --affine` learnt, in place of both
      +clip70       2- and 3-bit codes span 70 % of a group's range
      +rope8        rotary keys of latent attention at 8 or 4 bits; default: 16
      +res128       the last 128 tokens in 16 bits
      +sink4        the first 4 tokens in 16 bits
      +protect{0,27}:k8v8   layers that keep other bits
      +pc256 +pcdyn prefill in chunks of 256 tokens, or as memory allows
      wQ4_K_M-kq8_0vq5_1   format names, for the engines that run them
    """
    from .. import api

    document = api.estimate(
        _model(argument, model),
        config,
        context=prompt,
        output=output,
        batch=batch,
        users=users,
        gpu=gpu,
        parallel=parallel,
        dtype=dtype,
        task=task,
        engine=engine,
        full_logits=full_logits,
        offline=offline,
    )
    del trust_remote_code
    show(context, as_json, document, "terminal", "print_estimate")


def _model(argument: str | None, option: str | None) -> str:
    """The model that was named, before or behind `--model`. Raises BadInput for none."""
    model = chosen_model(argument, option)
    if model is None:
        from ..planner.typed_request import EXAMPLE

        raise BadInput("no model", f"name one: {EXAMPLE}")
    return model
