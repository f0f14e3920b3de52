"""The entry point of `kvpareto` and `python -m kvpareto`: Ctrl-C first, then the command line."""

from . import interrupt


def main() -> None:
    """Run the command line; what it imports can be interrupted without a traceback."""
    interrupt.install()
    from .cli import main

    main()


if __name__ == "__main__":
    main()
