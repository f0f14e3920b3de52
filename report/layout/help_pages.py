"""Commands whose `--help` fits the terminal. What formats it is imported when it is asked for."""

from typing import Any

import typer
from typer.core import TyperGroup


class FoldedContext(typer.Context):
    """The context of a command whose help is folded."""

    def make_formatter(self) -> Any:
        """What writes the help, at most `max_content_width` columns wide."""
        from .help_text import FoldedHelp

        return FoldedHelp(width=self.terminal_width, max_width=self.max_content_width)


class FoldedGroup(TyperGroup):
    """Commands whose help is folded, with a whole sentence for each in the list of them."""

    context_class = FoldedContext

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; None where there is none."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            command.context_class = FoldedContext
            sentence = (command.help or "").partition("\n\n")[0].partition(". ")[0]
            command.short_help = sentence.rstrip(".") + "."
        return command
