"""A command line that cannot be read: what is wrong with it, and how it is typed instead."""

import math
import re
import shlex
from collections.abc import Sequence
from typing import Any

import typer
from typer.main import get_command

from ..planner.units import groups_digits
from ..report.failure import Failure

_NO_NUMBER = re.compile(
    r"Invalid value for '(--[\w-]+)'.*: '(.*)' is not a valid (int|float)(?:eger)?\."
)

ELSEWHERE = {
    "--output": ("max-tokens", "max-new-tokens", "n-predict", "num-predict"),
    "--context": ("ctx", "ctx-size", "n-ctx", "num-ctx", "context-length", "context-size",
                  "max-model-len", "max-seq-len"),
    "--budget": ("vram", "memory", "mem", "max-memory", "gpu-memory"),
    "--users": ("batch-size", "bs", "concurrency", "max-num-seqs", "parallel-requests"),
    "--parallel": ("tensor-parallel-size", "tp", "tp-size"),
}  # fmt: skip
"""What other programs call an option, by ours."""


def misuse(app: typer.Typer, arguments: Sequence[str], error: Any) -> Failure:
    """The failure that the parser's `error` is: its words, and the help that lists what is right.

    Options that stand before their command are the one mistake whose cause the parser cannot know.
    """
    message = error.format_message()
    if number := _NO_NUMBER.fullmatch(message):
        return _no_number(*number.groups())
    commands = get_command(app).commands  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    owners = [name for name, each in commands.items() if option in _options(each)]
    if owners and context is not None and context.parent is None:
        named = next((word for word in arguments if word in commands), None)
        others = list(arguments)
        if named is not None:
            others.remove(named)
            message += " before the command"
        line = shlex.join(["kvpareto", named or owners[0], *others])
        return Failure(message, f"a command comes first: {line}", 2)
    # The parser does not say whose option lacks its value.
    asked = " ".join(["kvpareto", *(word for word in arguments[:1] if word in commands)])
    where = getattr(context, "command_path", asked)
    hint = f"`{where} --help` shows how it is called"
    ours = next((name for name, others in ELSEWHERE.items() if (option or "")[2:] in others), None)
    if ours is not None and ours in _options(getattr(context, "command", None)):
        return Failure(message, f"it is {ours} here; {hint}", 2)
    if where == "kvpareto run" and message.startswith("Got unexpected extra"):
        hint = 'the model is named by -m: kvpareto run -m MODEL "prompt"'
    if owners and where not in [f"kvpareto {name}" for name in owners]:
        hint = f"{option} is an option of {' and '.join(owners[:3])}; {hint}"
    return Failure(message, hint, 2)


def _no_number(option: str, text: str, kind: str) -> Failure:
    """The failure for a text that is no number, with those that it may mean: `0,5` is 0.5, and
    where a number is a part `1%` is 0.01."""
    plain = text.strip()
    percent = plain.endswith("%")
    plain = plain.removesuffix("%").strip()
    ways = [plain.replace(",", "")] * groups_digits(plain) + [plain.replace(",", ".")]
    meant = []
    for way in ways:
        try:
            value = float(way) / (100 if percent else 1)
        except ValueError:
            continue
        if math.isfinite(value) and (kind == "float" or (value.is_integer() and not percent)):
            meant.append(f"{option} {value:.12g}")
    noun = "a number" if kind == "float" else "a whole number"
    said = f"{option} is {noun}, and {text!r} is none"
    example = "0.5" if kind == "float" else "4"
    return Failure(said, f"write {' or '.join(meant) or f'{option} {example}'}", 2)


def _options(command: Any) -> set[str]:
    return {name for parameter in getattr(command, "params", ()) for name in parameter.opts}
