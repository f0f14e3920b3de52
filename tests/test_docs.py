"""What the docs show works: every command is run, the generated reference is up to date."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from kvpareto.cli import run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (page.name, line.removeprefix("$ kvpareto "))
    for page in PAGES
    for block in re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ kvpareto ")
]


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[c for _, c in COMMANDS])
def test_commands_of_the_docs_run(
    page: str, command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = [a.replace("plan.json", str(tmp_path / "plan.json")) for a in shlex.split(command)]
    assert run(arguments) == 0, f"{page}: {capsys.readouterr().err}"
    assert capsys.readouterr().out


def test_every_local_link_leads_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_what_the_docs_quote_is_what_the_program_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "TERMINAL_WIDTH", "KVPARETO_HOME"):
        monkeypatch.setenv(name, "")
    written = load("docs/write_generated.py")
    for name, generate in written.PAGES.items():
        assert written.stale(name, (ROOT / name).read_text("utf-8"), generate()) == []


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("loaded", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
