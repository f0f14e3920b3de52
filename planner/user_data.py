"""Where this user's calibrations and other data are kept."""

import os
import sys
from pathlib import Path

from .errors import BadInput

ENVIRONMENT = "KVPARETO_HOME"


def home() -> Path:
    """Where this user's calibrations and other data are kept. Raises BadInput where there is no
    such place: a user without an entry in the system's list and without HOME."""
    try:
        chosen = os.environ.get(ENVIRONMENT)
        if chosen:
            return Path(chosen).expanduser()
        if sys.platform == "linux":
            # As platformdirs answers, without the 20 ms that importing it adds to every plan.
            data = os.environ.get("XDG_DATA_HOME", "").strip()
            return (Path(data) if data else Path.home() / ".local" / "share") / "kvpareto"
        from platformdirs import user_data_path

        return user_data_path("kvpareto", appauthor=False)
    except RuntimeError:
        raise BadInput(
            "this user has no home folder", f"set {ENVIRONMENT} to a folder you may write"
        ) from None
