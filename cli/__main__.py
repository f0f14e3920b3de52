"""`python -m kvpareto.cli`, which is `python -m kvpareto`."""

from ..__main__ import main

if __name__ == "__main__":
    main()
