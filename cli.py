"""The command line: parse, call, render. Nothing else lives here.

Data goes to stdout, everything else to stderr. A mistake is one `error:` line, one `hint:`
line and exit code 2; exit code 1 says that nothing fits, 3 that a library or GPU is missing.
Heavy imports stay inside the commands that need them.
"""

import gc
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .calibration.commands import calibrate as calibrate_command
from .calibration.commands import profiles as profiles_command
from .calibration.commands import verify as verify_command
from .calibration.commands.shared_options import AsJson, Batch, Context, EngineName, Offline, Output
from .planner.engines import find_engine
from .planner.errors import BadInput, KVParetoError, one_line

if TYPE_CHECKING:
    from .planner.hardware.gpus import Hardware
    from .planner.models.spec import ModelSpec

# typer keeps click to itself; a usage error's base class is all that is needed of it.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]
_EXAMPLE = "kvpareto plan --model Qwen/Qwen2.5-7B-Instruct --budget 12GB --context 32k"

app = typer.Typer(
    name="kvpareto",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Hub id (bundled, cached or downloaded: config only), folder, or config.json.",
    ),
]
Gpu = Annotated[
    str | None,
    typer.Option(
        help="GPU to predict for: H200, 4090, auto (this machine's); see `kvpareto profiles list`."
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="What 16 bits are: bfloat16 or float16; or float32.  "
        "[default: the checkpoint's; of float32 ones bfloat16]"
    ),
]
FullLogits = Annotated[
    bool, typer.Option("--full-logits", help="Count logits of every prompt token, not the last.")
]
TaskKind = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Kind of task whose retention counts: retrieval, reasoning, long-reasoning or "
        "likelihood.  [default: the weakest generated kind]",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Accepted for models that need it; never used here."),
]


def _print_version(asked: bool) -> None:
    if asked:
        from . import __version__

        typer.echo(f"kvpareto {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    as_json: AsJson = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Which weight bits, KV-cache bits and prefill chunk to run for a model and a budget.

    Start with: kvpareto plan --model Qwen/Qwen2.5-7B-Instruct --budget 12GB
    """
    context.obj = as_json
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def plan(
    context: typer.Context,
    model: Model,
    budget: Annotated[
        str | None,
        typer.Option(help="Memory to stay within: 12GB, 11.5GiB.  [default: what --gpu gives]"),
    ] = None,
    prompt: Context = None,
    output: Output = "512",
    batch: Batch = "1",
    gpu: Gpu = None,
    reserve: Annotated[
        str | None,
        typer.Option(
            help="Of --gpu's memory, to leave to others.  [default: 500MB on consumer cards]"
        ),
    ] = None,
    dtype: Dtype = None,
    max_loss: Annotated[
        str | None,
        typer.Option(help="Largest loss to accept, by the lower end: 3%.  [default: 10%]"),
    ] = None,
    task: TaskKind = None,
    accept_risk: Annotated[
        bool,
        typer.Option("--accept-risk", help="Recommend even what the lower end does not promise."),
    ] = False,
    objective: Annotated[str, typer.Option(help="accuracy, latency or memory.")] = "accuracy",
    engine: EngineName = "kvpareto",
    max_context: Annotated[
        bool, typer.Option("--max-context", help="Show the longest context that fits instead.")
    ] = False,
    full_logits: FullLogits = False,
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
    """
    from .planner.gpu_memory import budget_of
    from .planner.run_dtype import as_run, parse_dtype
    from .planner.search.recommend import Request, longest_contexts, recommend
    from .planner.units import parse_bytes, parse_fraction
    from .planner.workload import Workload
    from .report.document import longest_document, plan_document

    hardware = _hardware(gpu)
    if budget is None and hardware is None:
        raise BadInput("no budget", f"say how much memory there is: {_EXAMPLE}")
    if budget is not None and reserve is not None:
        raise BadInput(
            "--reserve beside --budget", "it is a part of --gpu's memory: give one of them"
        )
    kept: int | None = None
    if budget is not None or hardware is None:
        size = parse_bytes(budget or "")
    else:
        size, kept = budget_of(hardware, reserve)
    loss = parse_fraction(max_loss) if max_loss is not None else None
    spec = as_run(_load(model, offline, trust_remote_code), parse_dtype(dtype), hardware)
    request = Request(
        spec=spec,
        workload=Workload.parse(prompt, output, batch, spec.max_context, full_logits=full_logits),
        engine=find_engine(engine),
        budget=size,
        hardware=hardware,
        max_loss=loss,
        objective=objective,
        reserve=kept,
        task=_task(task),
        accept_risk=accept_risk,
    )
    if max_context:
        document = longest_document(request, longest_contexts(request))
    else:
        document = plan_document(recommend(request))
    if save is not None:
        from .report.output import write_document

        write_document(save, document)
        typer.echo(f"saved to {save}", err=True)
    _show(context, as_json, document, "terminal", "print_longest" if max_context else "print_plan")


@app.command()
def estimate(
    context: typer.Context,
    model: Model,
    config: Annotated[
        str, typer.Option(help="What to run, for example w4a16-k4v4-g64+pc256; see below.")
    ],
    prompt: Context = None,
    output: Output = "512",
    batch: Batch = "1",
    gpu: Gpu = None,
    dtype: Dtype = None,
    task: TaskKind = None,
    engine: EngineName = "kvpareto",
    full_logits: FullLogits = False,
    offline: Offline = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """The memory and latency of one configuration, term by term.

    \b
    kvpareto estimate -m Qwen/Qwen3-8B --config w4a16-k4v4-g64+pc256
    kvpareto estimate -m ./config.json --config w16a16-k16v16 --engine transformers

    \b
    A configuration, part by part (what is left out is the default):
      w4a16         weights at 16, 8 or 4 bits; activations at 16
      -k4v2         keys and values at 16, 8, 4 or 2 bits
      -g64          a scale for 32, 64 or 128 channels; default: for a head
      -kc -kc128    keys per channel, in blocks of 32 or 128 tokens
      -pb128 -pt    tiles of 128 tokens; one scale for a whole tensor
      +smooth +rot  K-smoothing; Hadamard rotation
      +res128       the last 128 tokens in 16 bits
      +sink4        the first 4 tokens in 16 bits
      +protect{0,27}:k8v8   layers that keep other bits
      +pc256 +pcdyn prefill in chunks of 256 tokens, or as memory allows
    """
    from .planner.accuracy import predict as accuracy
    from .planner.formats.configuration import Configuration
    from .planner.latency import predict as latency
    from .planner.memory import estimate as memory
    from .planner.run_dtype import as_run, parse_dtype
    from .planner.workload import Workload
    from .report.document import estimate_document

    chosen, kind, hardware = Configuration.parse(config), find_engine(engine), _hardware(gpu)
    spec = as_run(_load(model, offline, trust_remote_code), parse_dtype(dtype), hardware)
    workload = Workload.parse(prompt, output, batch, spec.max_context, full_logits=full_logits)
    document = estimate_document(
        spec,
        chosen,
        kind,
        workload,
        memory.estimate(spec, chosen, workload, kind, hardware),
        accuracy.predict(spec, chosen, workload.context, task=_task(task)),
        latency.predict(spec, chosen, workload, kind, hardware) if hardware is not None else None,
    )
    _show(context, as_json, document, "terminal", "print_estimate")


def _show(
    context: typer.Context, as_json: bool, document: Mapping[str, Any], module: str, printer: str
) -> None:
    """The document on stdout: as JSON, or through `report.<module>.<printer>`."""
    from .report.output import print_json, print_tables

    if as_json or context.find_root().obj:
        print_json(document)
    else:
        print_tables(document, module, printer)


calibrate_command.register(app, _show)
verify_command.register(app, _show)
profiles_command.register(app, _show)


def main() -> None:
    """Entry point of the `kvpareto` script: exits with the code that says how it went."""
    # Imports and plans make many objects and little garbage: looking for it at the default
    # threshold takes a twelfth of a plan's time.
    gc.set_threshold(100_000, 50, 50)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our box characters
    code = run(sys.argv[1:])
    sys.stderr.flush()
    if "torch" in sys.modules:
        sys.exit(code)
    # A plan leaves no files, threads or devices behind, and taking the interpreter apart, object
    # by object, would take another tenth of its time.
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; expected failures are lines on stderr."""
    try:
        code = app(list(arguments), prog_name="kvpareto", standalone_mode=False)
        sys.stdout.flush()
    except KVParetoError as error:
        return _fail(error.message, error.hint, error.exit_code)
    except _UsageError as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "kvpareto")
        return _fail(error.format_message(), f"`{where} --help` shows how it is called", 2)  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output went away; nothing is left to say, nor to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(str(error), "the system refused a file; is the disk full?", 2)
    return code if isinstance(code, int) else 0


def _fail(message: str, hint: str, code: int) -> int:
    typer.echo(f"error: {one_line(message)}", err=True)
    if hint:
        typer.echo(f"hint: {one_line(hint)}", err=True)
    return code


def _load(model: str, offline: bool, trust_remote_code: bool) -> "ModelSpec":
    from .planner.load_model import load_model

    return load_model(model, offline=offline, trust_remote_code=trust_remote_code)


def _task(kind: str | None) -> str | None:
    from .planner.task_kinds import parse_task

    return parse_task(kind) if kind is not None else None


def _hardware(name: str | None) -> "Hardware | None":
    if name is None:
        return None
    if name.strip().lower() == "auto":
        from .planner.this_gpu import this_gpu

        return this_gpu()
    from .planner.hardware.gpus import find_gpu

    return find_gpu(name)
