"""The entry point of `kvpareto` and `python -m kvpareto`: Ctrl-C first, then the command line."""

try:
    from . import interrupt
except KeyboardInterrupt:  # in the milliseconds before it is ours
    from . import interrupt

    interrupt.end(is_answered=False)


def main() -> None:
    """Run the command line; it can be interrupted at any moment without a traceback."""
    interrupt.install()
    import gc

    # Imports and plans make many objects and little garbage: looking for it takes a twelfth of a
    # plan's time at the default threshold. cli/app.py lowers it again for what runs longer.
    gc.set_threshold(1_000_000, 50, 50)
    from .cli import main

    main()


if __name__ == "__main__":
    main()
