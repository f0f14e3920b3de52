"""The light decorator makes the dataclasses that the standard one makes."""

import dataclasses

import pytest

from kvpareto.planner.light_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    label: str = dataclasses.field(default="", compare=False)


@dataclass(frozen=True)
class Other:
    x: int
    y: int = 2


@dataclass
class Mutable:
    x: int


def test_fields_compare_hash_and_print_as_in_a_standard_dataclass():
    standard = dataclasses.make_dataclass(
        "Point", [("x", int), ("y", int), ("label", str)], frozen=True
    )
    assert Point(1) == Point(1, 2, label="another")
    assert Point(1) != Point(2)
    assert Point(1) != Other(1)
    assert hash(Point(1)) == hash(Point(1, 2, label="another")) == hash((1, 2))
    assert repr(Point(1)) == repr(standard(1, 2, ""))
    assert dataclasses.replace(Point(1), y=5) == Point(1, 5)
    assert [field.name for field in dataclasses.fields(Point)] == ["x", "y", "label"]


@dataclass
class Filled:
    given: int
    made: list[int] = dataclasses.field(default_factory=list)
    doubled: int = 0

    def __post_init__(self) -> None:
        self.doubled = 2 * self.given


def test_init_takes_fields_by_place_and_by_name_and_makes_defaults_anew():
    one, other = Filled(1), Filled(given=1, made=[3])
    one.made.append(7)
    assert (Filled(1).made, one.made, other.made) == ([], [7], [3])
    assert (one.doubled, Filled(4, [], 5).doubled) == (2, 8)
    assert Filled(1, None).made is None  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Filled.__init__\(\) missing 1 required .*'given'"):
        Filled()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        Filled(1, other=2)  # type: ignore[call-arg]


def test_slots_and_mutability_follow_the_options():
    with pytest.raises(AttributeError):
        Point(1).other = 1
    one = Mutable(1)
    one.x = 2
    assert one == Mutable(2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_identity_is_kept_where_no_equality_is_asked_for():
    identical = dataclass(type("Identical", (), {"__annotations__": {"x": int}}), eq=False)
    assert identical(1) != identical(1)
    assert len({identical(1), identical(1)}) == 2
