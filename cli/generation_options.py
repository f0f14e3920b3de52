"""Options that `run` and `chat` share, defined once: a command takes them all as one argument."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Device, Offline, TrustRemoteCode

SHARED = {
    "model": (
        Annotated[
            str | None,
            typer.Option(
                "--model", "-m", help="A folder with weights, or a hub id. smollm2 is a small one."
            ),
        ],
        None,
    ),
    "plan": (
        Annotated[
            Path | None, typer.Option("--plan", help="File that `kvpareto plan --save` wrote.")
        ],
        None,
    ),
    "config": (
        Annotated[
            str | None,
            typer.Option(
                "--config",
                help="Configuration to run: w4a16-k4v4-g64+pc256.  [default: the recommended one]",
            ),
        ],
        None,
    ),
    "budget": (
        Annotated[
            str | None,
            typer.Option(
                "--budget",
                help="Memory that a run may use: 12GB, 11.5GiB.  "
                "[default: free memory of the device]",
            ),
        ],
        None,
    ),
    "context": (
        Annotated[
            str | None,
            typer.Option(
                "--context",
                help="Prompt tokens that the cache holds: 32k, 10240.  "
                "[default: 4k, or the plan's]",
            ),
        ],
        None,
    ),
    "output": (
        Annotated[
            str | None,
            typer.Option("--output", help="Tokens to generate.  [default: 512, or the plan's]"),
        ],
        None,
    ),
    "temperature": (
        Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token.")],
        0.0,
    ),
    "top_k": (
        Annotated[int | None, typer.Option("--top-k", help="Sample from the k likeliest tokens.")],
        None,
    ),
    "top_p": (
        Annotated[float, typer.Option("--top-p", help="Sample from this probability mass.")],
        1.0,
    ),
    "seed": (Annotated[int, typer.Option("--seed", help="Seed of sampling.")], 0),
    "device": (Device, None),
    "offline": (Offline, False),
    "trust_remote_code": (TrustRemoteCode, False),
}
"""The options of both commands: what each is, and its default; named as RunOptions names them."""


def with_shared(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with an option for each of SHARED before its own ones, in place of `shared`,
    which it gets by name."""
    own = [one for name, one in signature(command).parameters.items() if name != "shared"]
    asked = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in SHARED.items()
    ]

    @wraps(command)
    def call(**typed: Any) -> None:
        command(shared={name: typed.pop(name) for name in SHARED}, **typed)

    first = [one for one in own if one.kind is not Parameter.KEYWORD_ONLY]
    call.__signature__ = Signature([*first, *asked, *own[len(first) :]])  # type: ignore[attr-defined]
    call.__annotations__ = {}
    return call
