"""Options that `plan` and `estimate` share, with their help texts."""

from typing import Annotated

import typer

from .report import completion

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Hub id (bundled, cached or downloaded: config only), folder, or config.json.",
        autocompletion=completion.models,
    ),
]
Gpu = Annotated[
    str | None,
    typer.Option(
        help="GPU to predict for: H200, 4090, auto (this machine's), 2xH100, 3090+3060; see "
        "`kvpareto profiles list`.",
        autocompletion=completion.gpus,
    ),
]
Users = Annotated[
    str | None,
    typer.Option(help="Users whose sequences are there at once: another name of --batch."),
]
ParallelSizes = Annotated[
    str | None,
    typer.Option(
        "--parallel", help="How cards share the model: tp4, tp2,pp2, tp2,dp4,ep.  [default: best]"
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Dtype of what is not quantized: bfloat16, float16 or float32.  "
        "[default: the checkpoint's; bfloat16 if that is float32]"
    ),
]
FullLogits = Annotated[
    bool,
    typer.Option(
        "--full-logits", help="Count logits of every prompt token, not of the last alone."
    ),
]
TaskKind = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Kind of task whose retention counts: retrieval, reasoning, long-reasoning or "
        "likelihood.  [default: the weakest generated kind]",
        autocompletion=completion.task_kinds,
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Accepted and not used: planning runs no such code."),
]
