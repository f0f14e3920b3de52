"""What can be typed of a verification, whichever engine runs it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SharedVerifyOptions:
    """What was typed; None where nothing was."""

    plan: Path | None = None
    model: str | None = None
    config: str | None = None
    budget: str | None = None
    context: str | None = None
    output: str | None = None
    batch: str = "1"
    quick: bool = False
    seed: int = 1
    offline: bool = False
