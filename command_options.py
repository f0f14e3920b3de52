"""Options that `plan` and `estimate` share, with their help texts."""

from typing import Annotated

import typer

from .report import completion

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Hub id, folder or config.json. Only the config of a hub model is downloaded.",
        autocompletion=completion.models,
    ),
]
Gpu = Annotated[
    str | None,
    typer.Option(
        help="GPU to plan for: H200, 4090, 2xH100, 3090+3060, or auto for this machine's. "
        "`kvpareto profiles list` names all GPUs.",
        autocompletion=completion.gpus,
    ),
]
Users = Annotated[
    str | None,
    typer.Option(help="Users served at the same time. The same as --batch."),
]
ParallelSizes = Annotated[
    str | None,
    typer.Option(
        "--parallel",
        help="Parallelism over the GPUs: tp4 or tp2,pp2 or tp2,dp4,ep.  [default: best]",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Dtype of unquantized tensors: bfloat16, float16 or float32.  "
        "[default: the checkpoint's; bfloat16 if that is float32]"
    ),
]
FullLogits = Annotated[
    bool,
    typer.Option("--full-logits", help="Count logits of every prompt token, not only the last."),
]
TaskKind = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Kind of task whose retention decides: retrieval, reasoning, long-reasoning or "
        "likelihood.  [default: the weakest generated kind]",
        autocompletion=completion.task_kinds,
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="No effect: planning runs no code of a checkpoint."),
]
