"""Writes what the docs quote from the program: the command reference, README's plans, and the
tables that shipped rows decide.

    python docs/write_generated.py            # rewrites the pages: `make docs`
    python docs/write_generated.py --check    # names the lines that are stale: `make check`
"""

import argparse
import difflib
import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

HEADER = """# Command reference

Generated from the commands' help by `make docs`; do not edit.

Global: `--json` prints one JSON document on stdout and nothing else, logs go to stderr.
Exit codes: 0 done, 1 nothing fits or not verified, 2 bad input (one `error:` line, one `hint:`
line), 3 a missing optional dependency or GPU, 130 Ctrl-C. With `--json` these are a document too:
`{"schema": 1, "fits": false, "error": …, "hint": …, "exit_code": …}`, with the numbers of the prose
as fields (`needed_bytes`, `budget`, `would_fit`). JSON holds no NaN and no infinity.
"""
COMMANDS = (
    (),
    ("plan",),
    ("estimate",),
    ("calibrate",),
    ("verify",),
    ("report",),
    ("ui",),
    ("run",),
    ("chat",),
    ("profiles",),
    ("profiles", "list"),
    ("profiles", "show"),
    ("profiles", "check"),
    ("profiles", "export"),
    ("profiles", "import"),
)


def reference() -> str:
    """The whole page. Wrapped for 80 columns, whatever the terminal is."""
    os.environ["COLUMNS"] = os.environ["TERMINAL_WIDTH"] = "80"
    from typer.testing import CliRunner

    from kvpareto.cli import application

    app, pages = application(), [HEADER]
    for command in COMMANDS:
        shown = CliRunner().invoke(app, [*command, "--help"], prog_name="kvpareto").output
        text = "\n".join(line.rstrip() for line in shown.strip().splitlines())
        pages.append(f"## {' '.join(('kvpareto', *command))}\n\n```text\n{text}\n```\n")
    return "\n".join(pages)


def man() -> str:
    """docs/kvpareto.1, the manual page."""
    sys.path.insert(0, str(ROOT / "docs"))
    import typer
    from man_page import man_page

    from kvpareto.cli import application

    return man_page(typer.main.get_command(application()))


def readme() -> str:
    """README.md with the output of its commands, and its figures of accuracy, as they are."""
    from kvpareto.calibration.evidence.latency_tables import readme_line
    from kvpareto.calibration.evidence.marked_tables import with_tables
    from kvpareto.calibration.evidence.readme_table import Shipped, accuracy_lines, formats_table

    shipped, page = Shipped.read(), _with_plans((ROOT / "README.md").read_text("utf-8"))
    lines = accuracy_lines(shipped) | {"latency": readme_line(ROOT / "docs")}
    for first, line in lines.items():
        page, replaced = re.subn(
            rf"^\| {re.escape(first)} \|.*$", lambda _, to=line: to, page, flags=re.M
        )
        if replaced != 1:
            raise SystemExit(f"README.md has no line {first!r}")
    return with_tables(page, {"formats": formats_table(shipped)})


def model_types() -> str:
    """The index of model types, from the tables of the modules that read them."""
    from importlib import import_module

    families = ROOT / "planner" / "models" / "families"
    index: dict[str, dict[str, Any]] = {"styles": {}, "readers": {}, "aliases": {}}
    for path in sorted(families.rglob("*.py")):
        name = ".".join(path.relative_to(families).with_suffix("").parts)
        if path.stem in ("__init__", "registry"):
            continue
        module = import_module(f"kvpareto.planner.models.families.{name}")
        for kind, table in (("styles", "STYLES"), ("readers", "READERS")):
            if getattr(module, table, None):
                index[kind][name] = list(getattr(module, table))
        index["aliases"] |= getattr(module, "ALIASES", {})
    lines = []
    for kind, entries in index.items():
        each = [f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items()]
        lines.append(f'  "{kind}": {{\n' + ",\n".join(each) + "\n  }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


SCHEMAS = (
    "plan", "max_context", "estimate", "calibrate", "verify", "verify_sweep", "run", "run_batch",
    "chat", "profiles_list", "profiles_show", "profiles_check", "profiles_export",
    "profiles_import", "report", "failure", "text",
)  # fmt: skip
"""Documents whose JSON Schema lies in docs/schemas; report/records/schemas.py names their types."""


def _schema(name: str) -> str:
    from kvpareto.report.records.schemas import json_schema

    return json.dumps(json_schema(name), indent=1, ensure_ascii=False) + "\n"


PAGES = {
    **{f"docs/schemas/{name}.json": partial(_schema, name) for name in SCHEMAS},
    "planner/models/families/model_types.json": model_types,
    "docs/cli.md": reference,
    "docs/kvpareto.1": man,
    "README.md": readme,
}
"""Files that are written whole, and README."""


def written() -> dict[str, str]:
    """Every file with what is generated, and its text."""
    from kvpareto.calibration.evidence.marked_tables import pages_with

    sys.path.insert(0, str(ROOT / "docs"))
    from page_tables import TABLES
    from quotes import QUOTES

    tables = {make.__name__: make() for make in TABLES}
    tables |= {name: quote.text() for name, quote in QUOTES.items()}
    pages = pages_with(tables, ROOT / "docs")
    return {name: generate() for name, generate in PAGES.items()} | {
        str(page.relative_to(ROOT)): text for page, text in pages.items()
    }


def stale(name: str, text: str, generated: str) -> list[str]:
    """What a page says and should say, line by line with its number: empty if it is up to date."""
    said, wanted = text.splitlines(), generated.splitlines()
    matcher = difflib.SequenceMatcher(None, said, wanted, autojunk=False)
    differences = []
    for kind, first, last, start, end in matcher.get_opcodes():
        if kind != "equal":
            differences.append(
                f"{name}:{first + 1}: is not what the program and the shipped rows say"
            )
            differences += [f"  - {line}" for line in said[first:last]]
            differences += [f"  + {line}" for line in wanted[start:end]]
    return differences


def _with_plans(page: str) -> str:
    """README's console blocks with what their commands print on a terminal of 80 columns."""
    sys.path.insert(0, str(ROOT / "docs"))
    from quotes import answer

    def shown(block: re.Match[str]) -> str:
        return f"```console\n$ kvpareto {block[1]}\n{answer(block[1], 80)}```"

    page, blocks = re.subn(
        r"```console\n\$ kvpareto (.*?)\n(?:.*?)```", shown, page, flags=re.DOTALL
    )
    if not blocks:
        raise SystemExit("README.md has no console block")
    return page


def main() -> int:
    parser = argparse.ArgumentParser(prog="docs/write_generated.py")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a page is stale")
    options = parser.parse_args()
    from kvpareto.planner.errors import BadInput

    differences: list[str] = []
    try:
        files = written()
    except BadInput as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    for name, generated in files.items():
        path = ROOT / name
        differences += stale(name, path.read_text("utf-8") if path.exists() else "", generated)
        if not options.check:
            path.write_text(generated, encoding="utf-8")
    if options.check and differences:
        print("\n".join([*differences, "hint: make docs"]))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
