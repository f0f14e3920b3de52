"""Text files that a person names (`--text`, `--haystack`), read without trust.

A pipe would be waited for, a device read for ever, a 100 GB file into memory: each is one line
here.
"""

from pathlib import Path

from ...planner.errors import BadConfig, BadInput
from ...planner.models.untrusted_json import read_capped

MOST_BYTES = 2**28
_HINT = "give a UTF-8 text file"


def read_user_text(path: Path | str) -> str:
    """The text of a regular file. Raises BadInput for anything else."""
    try:
        return read_capped(Path(path).expanduser(), MOST_BYTES).decode("utf-8")
    except BadConfig as error:
        raise BadInput(error.message.replace("for a config", "for a text"), _HINT) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"cannot read {path}: it is not UTF-8", _HINT) from error
    except RuntimeError as error:  # a home folder that is not there
        raise BadInput(f"cannot read {path}: {error}", _HINT) from error
