"""The command line: options parsed, work called, output shown; a file for each command or two.

`app` names the commands, `command_line` runs one from its arguments to its exit code, `options` has
what several commands take. Heavy imports stay inside the commands.
"""

from .app import application, main, run

__all__ = ["application", "main", "run"]
