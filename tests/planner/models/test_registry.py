"""The index of families: every entry leads to its module's table, and no table has more."""

from importlib import import_module

import pytest

from kvpareto.planner.models.families import reader_of
from kvpareto.planner.models.families.registry import READER_MODULES, STYLE_MODULES

FAMILIES = "kvpareto.planner.models.families"


@pytest.mark.parametrize(
    ("index", "table"),
    [(STYLE_MODULES, "STYLES"), (READER_MODULES, "READERS")],
    ids=["styles", "readers"],
)
def test_the_index_is_the_tables(index: dict[str, str], table: str) -> None:
    modules = {*STYLE_MODULES.values(), *READER_MODULES.values()}
    found = {
        name: module
        for module in modules
        for name in getattr(import_module(f"{FAMILIES}.{module}"), table, {})
    }
    assert found == index


def test_sections_known_under_another_name_are_found() -> None:
    assert reader_of("qwen2_5_vl_text") is not None
    assert reader_of("minimax_m3") is not None
    assert reader_of("nobody") is None
