"""The command line: parse, call, render. Nothing else lives here.

Data goes to stdout, everything else to stderr. A mistake is one `error:` line, one `hint:`
line and exit code 2; exit code 1 says that nothing fits, 3 that a library or GPU is missing.
With `--json` every end, help and mistakes too, is one JSON document on stdout.
Heavy imports stay inside the commands that need them.
"""

import gc
import io
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import interrupt
from .calibration.commands import calibrate as calibrate_command
from .calibration.commands import profiles as profiles_command
from .calibration.commands import verify as verify_command
from .calibration.commands.shared_options import (
    AsJson,
    Batch,
    Context,
    EngineName,
    ModelArgument,
    Offline,
    Output,
    chosen_model,
)
from .planner.errors import BadInput, one_line
from .planner.light_dataclass import dataclass
from .report.page import commands as report_commands

if TYPE_CHECKING:
    from .report.failure import Failure

# typer keeps click to itself; a usage error's base class is all that is needed of it.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="kvpareto",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)

Model = Annotated[
    str | None,
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


@dataclass
class Answer:
    """What a command line says on stdout: with `--json` the one document it ends with."""

    as_json: bool
    document: Mapping[str, Any] | None = None


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
    if not isinstance(context.obj, Answer):
        context.obj = Answer(as_json)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def plan(
    context: typer.Context,
    argument: ModelArgument = None,
    model: Model = None,
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
    details: Annotated[
        bool,
        typer.Option("--details", help="Show terms, why, next steps and frontier on any terminal."),
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
    """
    from . import api

    if save is not None:
        from .planner.whole_file import check_target

        check_target(save)
    document = (api.max_context if max_context else api.plan)(
        _model(argument, model),
        budget=budget,
        context=prompt,
        output=output,
        batch=batch,
        gpu=gpu,
        reserve=reserve,
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
        from .report.output import write_document

        write_document(save, document)
        typer.echo(one_line(f"saved to {save}", 4096), err=True)
    printer = "print_plan_details" if details else "print_plan"
    _show(context, as_json, document, "terminal", "print_longest" if max_context else printer)


@app.command()
def estimate(
    context: typer.Context,
    config: Annotated[
        str, typer.Option(help="What to run, for example w4a16-k4v4-g64+pc256; see below.")
    ],
    argument: ModelArgument = None,
    model: Model = None,
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
      wQ4_K_M-kq8_0vq5_1   formats by name, of the engines that run them
    """
    from . import api

    document = api.estimate(
        _model(argument, model),
        config,
        context=prompt,
        output=output,
        batch=batch,
        gpu=gpu,
        dtype=dtype,
        task=task,
        engine=engine,
        full_logits=full_logits,
        offline=offline,
    )
    del trust_remote_code
    _show(context, as_json, document, "terminal", "print_estimate")


def _show(
    context: typer.Context, as_json: bool, document: Mapping[str, Any], module: str, printer: str
) -> None:
    """The document on stdout: as JSON (`run` prints it), or through `report.<module>.<printer>`."""
    answer: Answer = context.find_root().obj
    if as_json or answer.as_json:
        answer.as_json, answer.document = True, document
    else:
        from .report.output import print_tables

        print_tables(document, module, printer)


calibrate_command.register(app, _show)
verify_command.register(app, _show)
profiles_command.register(app, _show)
report_commands.register(app, _show)


def main() -> None:
    """Entry point of the `kvpareto` script: exits with the code that says how it went."""
    interrupt.install()
    # Imports and plans make many objects and little garbage: looking for it at the default
    # threshold takes a twelfth of a plan's time.
    gc.set_threshold(100_000, 50, 50)
    for name in ("stdout", "stderr"):  # a closed one is None to Python
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for the whole process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our box characters
    code = run(sys.argv[1:])
    with suppress(OSError):
        sys.stderr.flush()
    if "torch" in sys.modules:
        sys.exit(code)
    # A plan leaves no files, threads or devices behind, and taking the interpreter apart, object
    # by object, would take another tenth of its time.
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; expected failures are lines on stderr, and
    with `--json` a document on stdout."""
    answer = Answer(as_json="--json" in arguments)
    try:
        if not answer.as_json:
            code, failure = _call(arguments, answer)
        else:
            with redirect_stdout(io.StringIO()) as said:
                code, failure = _call(arguments, answer)
            _print_answer(answer, failure, said.getvalue())
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return 0
    except OSError as error:  # stdout itself: a full disk
        _drop_stdout()
        code, failure = _failed(error)
    if failure is not None:
        _say(failure.lines())
    return code


def _call(arguments: Sequence[str], answer: Answer) -> tuple[int, "Failure | None"]:
    """The exit code of the command, and what went wrong where something did."""
    try:
        code = app(list(arguments), prog_name="kvpareto", standalone_mode=False, obj=answer)
        return code if isinstance(code, int) else 0, None
    except SystemExit as leaving:  # shell completion leaves so
        return leaving.code if isinstance(leaving.code, int) else 0, None
    except BrokenPipeError:
        raise
    except _UsageError as error:
        from .report.failure import Failure

        where = getattr(getattr(error, "ctx", None), "command_path", "kvpareto")
        message = error.format_message()  # type: ignore[attr-defined]
        return 2, Failure(message, f"`{where} --help` shows how it is called", 2)
    except typer.Abort:
        return _failed(KeyboardInterrupt())
    except (Exception, KeyboardInterrupt) as error:
        return _failed(error)


def _failed(error: BaseException) -> tuple[int, "Failure"]:
    """Exit code and words for `error`. A fault of the program is raised where somebody looks."""
    from .report.failure import TRACEBACK, failure_of

    failure = failure_of(error)
    if failure.fault and os.environ.get(TRACEBACK):
        raise error
    return failure.code, failure


def _print_answer(answer: Answer, failure: "Failure | None", said: str) -> None:
    """The one document of `--json`. What was printed besides, by whatever library, goes to stderr,
    but where it is the answer itself (help, the version) it is the document's text."""
    from .report.output import print_json

    if failure is not None:
        print_json(failure.document())
    elif answer.document is not None:
        print_json(answer.document)
    else:
        print_json({"schema": 1, "text": said})
        return
    _say(said.splitlines())


def _say(lines: Sequence[str]) -> None:
    """Lines on stderr, if anybody is there to read them."""
    with suppress(OSError):
        for line in lines:
            typer.echo(line, err=True)


def _drop_stdout() -> None:
    """The reader of our output went away, or the disk is full: nothing is to be flushed at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _model(argument: str | None, option: str | None) -> str:
    """The model that was named, before or behind `--model`. Raises BadInput for none."""
    model = chosen_model(argument, option)
    if model is None:
        from .planner.typed_request import EXAMPLE

        raise BadInput("no model", f"name one: {EXAMPLE}")
    return model
