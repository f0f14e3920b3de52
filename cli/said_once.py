"""Options whose one text may hold several values are given once. A parser keeps the last of two
without a word, as scripts expect that put their own behind common ones; who types `--gpu 3090 --gpu
3060` means both."""

from typing import Any

import typer
from typer.core import TyperCommand

from ..planner.errors import BadInput

_GPUS = {"gpu": "--gpu 3090+3060"}
_SEVERAL = {"context": "--context 4k,16k", "tasks": "--tasks variables,arithmetic"}
TOGETHER = {
    "plan": _GPUS,
    "estimate": _GPUS,
    "calibrate": _SEVERAL,
    "verify": {**_SEVERAL, "budget": "--budget 8GB,12GB"},
}
"""How several values are typed, by command and option."""


class OnceCommand(TyperCommand):
    """A command that refuses to take the last of several values where it could take all."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the parser does. Raises BadInput for an option of TOGETHER that is given again."""
        together = TOGETHER.get(self.name or "", {})
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        given = [option for one in order for option in one.opts if option[2:] in together]
        for option in dict.fromkeys(given):
            if given.count(option) > 1:
                raise BadInput(
                    f"{option} is given twice", f"several are one text: {together[option[2:]]}"
                )
        return super().parse_args(ctx, args)


class OnceTyper(typer.Typer):
    """An app of such commands."""

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """As Typer's."""
        return super().command(name, cls=OnceCommand, **settings)
