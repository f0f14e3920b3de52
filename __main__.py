"""The entry point of `kvpareto` and `python -m kvpareto`: Ctrl-C first, then the command line."""

import gc

from . import interrupt


def main() -> None:
    """Run the command line; what it imports can be interrupted without a traceback."""
    interrupt.install()
    # Imports and plans make many objects and little garbage: looking for it takes a twelfth of a
    # plan's time at the default threshold. cli.py lowers it again for what runs longer.
    gc.set_threshold(1_000_000, 50, 50)
    from .cli import main

    main()


if __name__ == "__main__":
    main()
