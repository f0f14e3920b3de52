"""Options that several commands share, each with its help."""

from typing import Annotated

import typer

from ..planner.errors import BadInput
from ..planner.models.model_name import plain_name
from ..report import completion

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]", help="The model, as --model takes it.", autocompletion=completion.models
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        "--context",
        help="Prompt tokens: 32k, 10240. For a server also lengths with shares: 2k,16k:0.9,0.1.  "
        "[default: 32k, or the model's maximum less --output]",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        help="Tokens to generate.  [default: 512, or half of what the model was made for]"
    ),
]
Batch = Annotated[str, typer.Option(help="Sequences that run at the same time.")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="kvpareto, transformers, transformers-eager, llama.cpp (also ollama), vllm, "
        "vllm-plugin or sglang. `plan` also takes any, which compares engines.",
        autocompletion=completion.engines,
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda.  [default: cuda if available]")]
Offline = Annotated[bool, typer.Option("--offline", help="Do not access the hub.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the checkpoint's own code.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
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
        help="Kind of task whose retention decides: retrieval, reading, reasoning, "
        "long-reasoning, short-reasoning or likelihood.  [default: the weakest generated kind]",
        autocompletion=completion.task_kinds,
    ),
]


def chosen_model(argument: str | None, option: str | None) -> str | None:
    """The model that was named, as an argument or by `--model`, an address as its hub id. Raises
    BadInput for two, and for one without a name."""
    if argument is not None and option is not None and argument != option:
        raise BadInput(f"two models: {argument!r} and --model {option!r}", "name one model, once")
    named = option if argument is None else argument
    if named is not None and not named.strip():
        raise BadInput(f"not a model: {named!r}", "give a hub id, a folder or a config.json")
    return None if named is None else plain_name(named)
