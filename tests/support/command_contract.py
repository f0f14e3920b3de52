"""The contract of every command line: no traceback, an exit code of DESIGN's, one JSON document
where one was asked for, valid under its JSON Schema in docs/schemas.

    contract(line, outcome, as_json=…, is_light=…)    what is wrong with how it ended
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jsonschema

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@dataclass(frozen=True)
class Line:
    """`arguments`, the exit code on the full install, and on the light one where it differs."""

    arguments: tuple[str, ...]
    code: int
    light: int | None = None
    slow: bool = False
    """Whether it measures: seconds to minutes."""

    def expected(self, *, is_light: bool) -> int:
        return self.light if is_light and self.light is not None else self.code


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def contract(line: Line, found: Outcome, *, as_json: bool, is_light: bool) -> list[str]:
    """What is wrong with `found`; empty where nothing is."""
    wrong = []
    if "Traceback" in found.err + found.out or "fault of kvpareto" in found.err:
        wrong.append("a traceback, or a fault")
    if found.code != line.expected(is_light=is_light):
        wrong.append(f"exit {found.code}, not {line.expected(is_light=is_light)}")
    if "\x1b" in found.out + found.err:
        wrong.append("an escape reaches the terminal")
    if as_json or any(argument.startswith("--json") for argument in line.arguments):
        wrong += _json(line.arguments, found)
    elif found.code in (2, 3) or (found.code == 1 and not found.out):
        lines = [x for x in found.err.splitlines() if x.startswith(("error: ", "hint: "))]
        if [x.split(":")[0] for x in lines] != ["error", "hint"] or found.out:
            wrong.append(f"not one error and one hint: {found.err!r}")
    if found.code == 3 and "pip install" not in found.err and "GPU" not in found.err:
        wrong.append("exit 3 without what to do")
    return wrong


def schema_name(arguments: tuple[str, ...], code: int) -> str:
    """The file of docs/schemas, less its ending, that describes what a command line prints."""
    if code:
        return "failure"
    if not arguments or arguments[-1] in ("--help", "-h", "--version", "profiles"):
        return "text"
    if arguments[0] == "profiles":
        return f"profiles_{arguments[1]}"
    return "max_context" if "--max-context" in arguments else arguments[0]


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))
    return jsonschema.Draft202012Validator(schema)


def _json(arguments: tuple[str, ...], found: Outcome) -> list[str]:
    def refuse(text: str) -> None:
        raise ValueError(text)

    try:
        document = json.loads(found.out, parse_constant=refuse)
    except ValueError as error:
        return [f"not one JSON document: {error}: {found.out[:80]!r}"]
    name = schema_name(arguments, found.code)
    wrong = [
        f"not as docs/schemas/{name}.json says: {error.json_path}: {error.message[:200]}"
        for error in _validator(name).iter_errors(document)
    ]
    if found.code:
        if document.get("fits") is not False or document.get("exit_code") != found.code:
            wrong.append("a failure whose document does not say so")
        if not document.get("error") or not isinstance(document.get("hint"), str):
            wrong.append("a failure without error and hint")
    return wrong


def run_here(line: Line, capture: Callable[[], tuple[str, str]], *, as_json: bool) -> Outcome:
    """`line` in this process; `capture` gives what was printed since it was last asked."""
    from kvpareto.cli import run

    code = run([*line.arguments, *["--json"] * as_json])
    return Outcome(code, *capture())
