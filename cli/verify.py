"""The command `verify`. Heavy imports stay inside it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..planner.errors import BadInput, one_line
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
    asked: dict[str, Any] = {
        "plan": plan,
        "model": chosen_model(argument, model),
        "config": config,
        "budget": budget,
        "context": prompt,
        "output": output,
        "batch": batch,
        "quick": quick,
        "seed": seed,
        "offline": offline,
    }
    ours: dict[str, Any] = {
        "random_weights": random_weights,
        "sweep": sweep,
        "tasks": tasks,
        "items": items,
        "device": device,
        "trust_remote_code": trust_remote_code,
    }
    behind = engine.strip().lower() == "vllm-plugin"
    if behind or _asks(plan, engine, "vllm"):
        document = _verify_vllm(asked | {"plugin": plugin or behind}, ours, binary)
    elif plugin:
        raise BadInput("--plugin is vLLM's", "use it with --engine vllm")
    elif _asks(plan, engine, "sglang"):
        raise BadInput(
            "verify does not run SGLang: its plans are not checked here",
            "it runs kvpareto, transformers, llama.cpp and vllm",
        )
    elif _is_llama_cpp(plan, engine):
        document = _verify_llama_cpp(asked, ours, binary)
    else:
        from ..calibration.verify.verify import VerifyOptions
        from ..calibration.verify.verify import verify as run

        if binary is not None:
            raise BadInput("--binary is a llama-server", "use it with --engine llama.cpp")
        document = run(VerifyOptions(engine=engine, **asked, **ours))
    if not document["verified"]:
        document |= {
            "fits": False,
            "error": document["verdict"],
            "hint": "`wrong` lists what was worse than promised; `corrected` says what to run",
            "exit_code": 1,
        }
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


def _asks(plan: Path | None, engine: str, name: str) -> bool:
    """Whether that engine is asked for, by its name or by the plan."""
    if engine.strip().lower() == name:
        return True
    if plan is None:
        return False
    from ..report.saved_plan import read_document

    try:
        return bool(read_document(plan).get("engine") == name)
    except BadInput:  # said by whoever reads it for good
        return False


def _is_llama_cpp(plan: Path | None, engine: str) -> bool:
    """Whether llama.cpp is asked for, by any of its names or by the plan."""
    from ..planner.engines import find_engine

    return find_engine(engine).places or _asks(plan, engine, "llama.cpp")


def _verify_vllm(
    asked: dict[str, Any], ours: dict[str, Any], binary: Path | None
) -> dict[str, Any]:
    """By the vLLM that is installed. Raises BadInput for what only other engines take."""
    taken = ("random_weights", "tasks", "items")
    refused = {"binary": binary} | {n: v for n, v in ours.items() if n not in taken}
    for name, value in refused.items():
        if value:
            option = name.replace("_", "-")
            raise BadInput(f"--{option} is not for --engine vllm", "leave it out")
    from ..calibration.vllm.start import check_installed

    check_installed()  # before what imports torch, which vLLM would bring
    from ..calibration.vllm.verify import VllmOptions
    from ..calibration.vllm.verify import verify as run

    return run(VllmOptions(**asked, **{name: ours[name] for name in taken}))


def _verify_llama_cpp(
    asked: dict[str, Any], ours: dict[str, Any], binary: Path | None
) -> dict[str, Any]:
    """Without torch. Raises BadInput for what only our own runs take."""
    from ..calibration.llama_cpp.verify import LlamaCppOptions
    from ..calibration.llama_cpp.verify import verify as run

    for name, value in ours.items():
        if value:
            option = name.replace("_", "-")
            raise BadInput(f"--{option} is not for --engine llama.cpp", "leave it out")
    return run(LlamaCppOptions(binary=binary, **asked))
