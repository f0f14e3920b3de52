"""What the docs show works: every command is run, the generated reference is up to date."""

import importlib.util
import re
import shlex
import shutil
import subprocess
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


def anchors(page: Path) -> set[str]:
    """What a link may name after #: headings as GitHub and the site make them, and ids."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"\s", "-", heading) for heading in words}


def test_every_local_anchor_is_a_heading() -> None:
    missing = []
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target, anchor in re.findall(
            r"\]\(((?!https?:)[^)#]*)#([^)]+)\)", page.read_text("utf-8")
        ):
            linked = page.parent / target if target else page
            if linked.suffix == ".md" and anchor not in anchors(linked):
                missing.append(f"{page.name}: {target}#{anchor}")
    assert missing == []


def test_every_path_of_contributing_exists() -> None:
    """Paths in backticks, from the root or beside the last one named; the tree's own entries."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = re.findall(r"`((?:[\w.-]+/)+(?:[\w.-]+)?)`", text)
    assert len(named) > 15
    assert [path for path in named if not (ROOT / path).exists()] == []
    tree = text.split("## Where things are")[1].split("```")[1].strip("\n").splitlines()
    folders: list[str] = []
    missing = []
    for line in tree:
        depth = (len(line) - len(line.lstrip())) // 2
        for name in line.strip().split("  ")[0].split(", "):
            path = "".join(folders[:depth]) + name
            if not (ROOT / path).exists():
                missing.append(path)
            if name.endswith("/"):
                folders[depth:] = [name]
    assert len(tree) > 30
    assert missing == []


def test_what_the_docs_quote_is_what_the_program_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "TERMINAL_WIDTH", "KVPARETO_HOME"):
        monkeypatch.setenv(name, "")
    program = load("docs/write_generated.py")
    for name, text in program.written().items():
        assert program.stale(name, (ROOT / name).read_text("utf-8"), text) == []


def test_the_manual_page_has_every_command_and_option() -> None:
    page = (ROOT / "docs" / "kvpareto.1").read_text("utf-8").replace(r"\-", "-")
    assert page.isascii()
    reference = (ROOT / "docs" / "cli.md").read_text("utf-8")
    sections = re.split(r"^## kvpareto ?", reference, flags=re.M)[2:]
    assert len(sections) >= 14
    for section in sections:
        name, help_text = section.split("\n", 1)
        assert f".SS kvpareto {name}\n" in page
        part = page.split(f".SS kvpareto {name}\n")[1].split(".SS ")[0]
        for option in re.findall(r"^  (?:-\w, )?(--[a-z-]+)", help_text, flags=re.M):
            assert option == "--help" or option in part, f"{name} {option}"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_manual_page_is_good_roff() -> None:
    command = ["groff", "-man", "-ww", "-z", str(ROOT / "docs" / "kvpareto.1")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stderr == ""


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("loaded", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
