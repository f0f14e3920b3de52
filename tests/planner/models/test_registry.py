"""The index of families: every entry leads to its module's table, and no table has more."""

from importlib import import_module
from pathlib import Path

import pytest

from kvpareto.planner.models import families
from kvpareto.planner.models.families import reader_of
from kvpareto.planner.models.families.registry import READER_MODULES, STYLE_ALIASES, STYLE_MODULES

ROOT = Path(families.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if path.stem not in ("__init__", "registry")
}


def table_of(module: str, table: str) -> dict[str, object]:
    found: dict[str, object] = getattr(
        import_module(f"kvpareto.planner.models.families.{module}"), table, {}
    )
    return found


@pytest.mark.parametrize(
    ("index", "table"),
    [(STYLE_MODULES, "STYLES"), (READER_MODULES, "READERS")],
    ids=["styles", "readers"],
)
def test_the_index_is_the_tables(index: dict[str, str], table: str) -> None:
    """`make docs` writes the index; a new type touches its family's module alone."""
    listed = [(name, module) for module in MODULES for name in table_of(module, table)]
    assert len(listed) == len(dict(listed))  # no type is read by two modules
    assert dict(listed) == index


def test_an_alias_names_a_style_of_its_own_module() -> None:
    tables = {module: table_of(module, "ALIASES") for module in MODULES}
    assert {name: of for table in tables.values() for name, of in table.items()} == STYLE_ALIASES
    for module, table in tables.items():
        assert all(STYLE_MODULES[str(of)] == module for of in table.values())


def test_sections_known_under_another_name_are_found() -> None:
    assert reader_of("qwen2_5_vl_text") is not None
    assert reader_of("minimax_m3") is not None
    assert reader_of("nobody") is None
