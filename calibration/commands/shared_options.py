"""Options that several commands share, each with its help, and how a command shows its result.

They lie here because the modules that register commands do, and cli.py may import from them.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from ...planner.errors import BadInput
from ...planner.models.model_name import plain_name
from ...report import completion

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

Show = Callable[[typer.Context, bool, Mapping[str, Any], str, str], None]
"""(context, as JSON?, document, module, printer): puts a document on stdout, as JSON or through
`report.<module>.<printer>`."""


def chosen_model(argument: str | None, option: str | None) -> str | None:
    """The model that was named, as an argument or by `--model`, an address as its hub id. Raises
    BadInput for two."""
    if argument is not None and option is not None and argument != option:
        raise BadInput(f"two models: {argument!r} and --model {option!r}", "name one model, once")
    named = option if argument is None else argument
    return None if named is None else plain_name(named)
