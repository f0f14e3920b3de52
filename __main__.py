"""The entry point of `kvpareto` and `python -m kvpareto`: Ctrl-C first, then the command line."""

from __future__ import annotations

try:
    from . import interrupt
except KeyboardInterrupt:  # in the milliseconds before it is ours
    from . import interrupt

    interrupt.end(is_answered=False)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    """Run the command line; it can be interrupted at any moment without a traceback."""
    interrupt.install()
    import gc

    # Imports and plans make many objects and little garbage: looking for it takes a twelfth of a
    # plan's time at the default threshold. cli/app.py lowers it again for what runs longer.
    gc.set_threshold(1_000_000, 50, 50)
    try:
        from .cli import main
    except Exception as error:
        _leave(error)
    main()


def _leave(error: Exception) -> NoReturn:
    """End as every command ends, where a library is missing that the command line is made of."""
    import sys

    from .report.failure import failure_of
    from .report.output import print_json

    failure = failure_of(error)
    if failure.fault:
        raise error
    if interrupt.asks_for_json(sys.argv):
        print_json(failure.document())
    print(*failure.lines(), sep="\n", file=sys.stderr)
    sys.exit(failure.code)


if __name__ == "__main__":
    main()
