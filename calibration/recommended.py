"""What is recommended on the device that runs it, and what helps where nothing is."""

from collections.abc import Mapping

from ..planner.errors import NothingFits
from ..planner.search.recommend import Plan, recommend
from ..planner.search.request import Request
from .verify.on_cpu import recommend_on_cpu

_TAKEN = ("a budget of", "--context")
"""Ways out of a plan's refusal that commands which run a model take too."""


def recommend_on(request: Request, device: str) -> Plan:
    """The plan for the memory of a GPU, or of a CPU. Raises NothingFits, whose hint names no option
    that `plan` alone has."""
    try:
        return (recommend_on_cpu if device == "cpu" else recommend)(request)
    except NothingFits as error:
        raise NothingFits(error.message, _hint(error), error.details) from None


def _hint(error: NothingFits) -> str:
    begins, _, ways = error.hint.partition(": ")
    kept = [way for way in ways.split("; or ") if way.startswith(_TAKEN)]
    risky = error.details.get("risky")
    if isinstance(risky, Mapping):
        kept.append(f"--config '{risky['config']}', to run it all the same")
    return f"{begins}: {'; or '.join(kept)}" if kept else "take a smaller model, or more memory"
