"""The package's imports, read from its source: who imports which module."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
WINGS = ("cli", "planner", "runtime", "calibration", "report", "profiles")


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below `kvpareto`, packages included."""
    files = [path for wing in WINGS for path in (ROOT / wing).rglob("*.py")]
    files.append(ROOT / "__main__.py")
    return {name_of(path): path for path in files}


def name_of(path: Path) -> str:
    """`planner.units` for planner/units.py; a package by its folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports, at its top or within a function."""
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    parents = package.split(".") if package else []
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = parents[: len(parents) - (node.level - 1)]
        target = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{target}.{alias.name}".lstrip(".")
            found.add(inner if inner in modules() else target)
    return found & modules().keys()


def room_of(module: str) -> str:
    """The room a module belongs to: a folder one or two levels down (`planner.memory`)."""
    parts = module.split(".")
    two = ".".join(parts[:2])
    is_folder = two in modules() and modules()[two].name == "__init__.py" and len(parts) > 1
    return two if is_folder else parts[0]
