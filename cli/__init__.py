"""The command line: options parsed, work called, output shown; a file for each command or two.

`app` names the commands, `command_line` runs one from its arguments to its exit code, `options` has
what several commands take. Heavy imports stay inside the commands, and the app is imported when it
is asked for: Ctrl-C is taken over before.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import application, main, run

__all__ = ["application", "main", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import app

        return getattr(app, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
