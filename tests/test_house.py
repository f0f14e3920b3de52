"""The order of the house: small folders, no import circle, imports that run downwards."""

import ast
import subprocess
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from tests.support.imports import ROOT, imported, modules, room_of

MOST_FILES = 20

PLANNER_FLOORS = (
    {"planner.search"},
    {"planner.engines", "planner.latency", "planner.accuracy"},
    {"planner.memory"},
    {"planner"},  # engine.py
    {"planner.hardware"},
    {"planner.models"},
    {"planner.formats"},
)
"""Rooms of the planner from the top down; each imports from lower ones alone. The planner's own
modules are ranked by PLANNER_MODULES."""

PLANNER_GROUND = {
    f"planner.{name}"
    for name in (
        "errors",
        "install",
        "libraries",
        "light_dataclass",
        "reading",
        "units",
        "user_data",
        "whole_file",
        "workload",
    )
}
"""Modules that every room may import, and that import no room."""


def _floor(module: str) -> int:
    if module in PLANNER_GROUND or module == "planner":
        return -1
    if module in ("planner.fewest_cards", "planner.compare_engines"):  # ask typed requests
        return len(PLANNER_FLOORS) + 2
    if module in ("planner.load_model", "planner.typed_request"):
        return len(PLANNER_FLOORS) + 1
    room = room_of(module)
    return next(len(PLANNER_FLOORS) - i for i, x in enumerate(PLANNER_FLOORS) if room in x)


@pytest.mark.parametrize("module", sorted(m for m in modules() if m.startswith("planner.")))
def test_the_planner_imports_downwards(module: str) -> None:
    above = [
        other
        for other in imported(module)
        if other.startswith("planner.")
        and room_of(other) != room_of(module)
        and _floor(other) >= _floor(module)
    ]
    assert not above


@pytest.mark.parametrize("module", sorted(modules()))
def test_packages_import_one_way(module: str) -> None:
    order = ["cli", "calibration", "report", "runtime", "planner", "profiles"]
    mine = module.split(".")[0]
    if mine in order:
        above = [o for o in imported(module) if o.split(".")[0] in order[: order.index(mine)]]
        assert not above


def test_nothing_reaches_around_a_door() -> None:
    """A room's __init__ names the modules that others may import, and names no more."""
    used: dict[str, set[str]] = {}
    for module in modules():
        for other in imported(module):
            room = room_of(other)
            if room != room_of(module) and other != room:
                used.setdefault(room, set()).add(other.removeprefix(f"{room}."))
    rooms = {room for room in used if "." in room}
    doors = {room: set(getattr(import_module(f"kvpareto.{room}"), "DOOR", ())) for room in rooms}
    assert doors == {room: used[room] for room in rooms}


def test_no_modules_import_each_other() -> None:
    graph = {module: imported(module) - {module} for module in modules()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for other in graph[module]:
            visit(other, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())


@cache
def _python_files() -> list[str]:
    """Every Python file of the tree that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [line for line in listed if (ROOT / line).exists()]


def test_no_folder_has_more_than_a_person_can_see() -> None:
    count = Counter(Path(line).parent for line in _python_files())
    crowded = {str(folder): n for folder, n in count.items() if n > MOST_FILES}
    assert not crowded


MOST_LINES = 300
LONGER = {
    "report/records/planning.py": "a table: the fields of the documents of a plan",
}
"""Files that may be longer, each with its reason."""


def _code_files() -> list[str]:
    """Code outside the tests: a test's file may be as long as its subject has cases."""
    return [line for line in _python_files() if not line.startswith("tests/")]


def test_no_file_is_longer_than_a_person_reads_at_once() -> None:
    lines = {f: len((ROOT / f).read_text(encoding="utf-8").splitlines()) for f in _code_files()}
    assert lines["cli/app.py"] > 100
    assert not {f: n for f, n in lines.items() if n > MOST_LINES and f not in LONGER}


def test_a_class_has_its_name_to_itself() -> None:
    """One name, one thing: what begins with an underscore stays within its module."""
    homes: dict[str, list[str]] = {}
    for file in _code_files():
        for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(file)
    assert homes["ModelSpec"] == ["planner/models/spec.py"]
    assert not {name: files for name, files in homes.items() if len(files) > 1}


def _imports_a_test(code: str) -> bool:
    """Whether a file takes something from a module of tests, which runs them in two places."""
    taken = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom))
    return any((node.module or "").rpartition(".")[2].startswith("test_") for node in taken)


def test_what_tests_share_is_in_no_module_of_tests() -> None:
    files = [line for line in _python_files() if line.startswith("tests/")]
    assert not [line for line in files if _imports_a_test((ROOT / line).read_text("utf-8"))]
    assert _imports_a_test("from tests.runtime.test_gpu import prompt")
