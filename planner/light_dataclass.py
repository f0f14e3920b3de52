"""`dataclass`, quicker to define: every start of the program defines seventy of them.

The standard decorator compiles up to seven methods of each class from text, which was a seventh of
a cold plan. Here one is: an `__init__` of one assignment a field. Comparing, hashing and printing
are the same code for all classes, over the tuple of their fields.

Type checkers are given the standard decorator and hold what `frozen` promises. At run time nothing
does. Fields are given or have a default; what else `field` can say is not needed here.
"""

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

_MADE = object()
"""The default of a field whose value a factory makes anew."""

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, eq=True, frozen=False, slots=False):
        """A dataclass of these options, as the standard decorator takes them."""
        if cls is None:
            return lambda cls: dataclass(cls, eq=eq, frozen=frozen, slots=slots)
        if cls.__doc__ is None:
            cls.__doc__ = cls.__name__  # else the standard decorator writes its signature there
        cls = dataclasses.dataclass(cls, eq=False, repr=False, init=False, slots=slots)
        cls.__init__ = _init_of(cls)
        if eq:
            compared = [field.name for field in dataclasses.fields(cls) if field.compare]
            _compare_by(cls, attrgetter(*compared), hashed=frozen)
        cls.__repr__ = _repr
        return cls


def _init_of(cls: Any) -> Callable[..., None]:
    """`__init__` of the class's fields, as the standard decorator's."""
    known: dict[str, object] = {"_MADE": _MADE}
    parameters, lines = [], []
    for number, field in enumerate(dataclasses.fields(cls)):
        name = value = field.name
        if field.default_factory is not dataclasses.MISSING:
            known[f"_make{number}"] = field.default_factory
            parameters.append(f"{name}=_MADE")
            value = f"_make{number}() if {name} is _MADE else {name}"
        elif field.default is not dataclasses.MISSING:
            known[f"_default{number}"] = field.default
            parameters.append(f"{name}=_default{number}")
        else:
            parameters.append(name)
        lines.append(f" self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    exec(f"def __init__(self, {', '.join(parameters)}):\n" + "\n".join(lines or [" pass"]), known)
    init: Any = known["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return cast("Callable[..., None]", init)


def _compare_by(cls: Any, values: Callable[[object], object], *, hashed: bool) -> None:
    """Give `cls` equality by `values` of an instance and, where `hashed`, a hash to match."""

    def equal(self: object, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    cls.__eq__ = equal
    cls.__hash__ = (lambda self: hash(values(self))) if hashed else None


def _repr(self: Any) -> str:
    shown = (field for field in dataclasses.fields(self) if field.repr)
    inside = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in shown)
    return f"{type(self).__qualname__}({inside})"
