"""Writes what the docs quote from the program: the command reference and README's first plan.

`make docs` rewrites both; tests/test_docs.py fails when either is stale.
"""

import contextlib
import io
import os
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]

HEADER = """# Command reference

Generated from the commands' help by `make docs`; do not edit.

Global: `--json` prints one JSON document on stdout and nothing else, logs go to stderr.
Exit codes: 0 done, 1 nothing fits or not verified, 2 bad input (one `error:` line, one `hint:`
line), 3 a missing optional dependency or GPU.
"""
COMMANDS = (
    (),
    ("plan",),
    ("estimate",),
    ("calibrate",),
    ("verify",),
    ("profiles",),
    ("profiles", "list"),
    ("profiles", "show"),
    ("profiles", "export"),
    ("profiles", "import"),
)


def reference() -> str:
    """The whole page. Wrapped for 80 columns, whatever the terminal is."""
    os.environ["COLUMNS"] = os.environ["TERMINAL_WIDTH"] = "80"
    from typer.testing import CliRunner

    from kvpareto.cli import app

    pages = [HEADER]
    for command in COMMANDS:
        shown = CliRunner().invoke(app, [*command, "--help"], prog_name="kvpareto").output
        text = "\n".join(line.rstrip() for line in shown.strip().splitlines())
        pages.append(f"## {' '.join(('kvpareto', *command))}\n\n```text\n{text}\n```\n")
    return "\n".join(pages)


def readme() -> str:
    """README.md with the output of its first command as it is now."""
    from kvpareto.cli import run

    page = (ROOT / "README.md").read_text("utf-8")
    block = re.search(r"```console\n\$ kvpareto (.*?)\n(.*?)```", page, re.DOTALL)
    if block is None:
        raise SystemExit("README.md has no console block")
    os.environ["COLUMNS"], os.environ["KVPARETO_HOME"] = "80", os.devnull
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        run(shlex.split(block[1]))
    text = "".join(line.rstrip() + "\n" for line in shown.getvalue().splitlines())
    return page[: block.start(2)] + text + page[block.end(2) :]


if __name__ == "__main__":
    (ROOT / "docs" / "cli.md").write_text(reference(), encoding="utf-8")
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
