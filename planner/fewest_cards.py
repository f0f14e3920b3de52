"""`--gpus auto`: the fewest cards of one kind that hold what is asked; `--gpus 4`: that many."""

from typing import Unpack

from .errors import BadInput, NothingFits
from .hardware.gpu_set import COUNTS, MOST, find_gpus
from .search.recommend import Plan, Request, recommend
from .typed_request import PlanWords, typed_request


def plan_cards(model: str, **words: Unpack[PlanWords]) -> Plan:
    """The plan of these words on as many cards as `gpus` says. Raises BadInput, and NothingFits
    where not even the most of COUNTS would do."""
    asked = words.pop("gpus", None)
    if asked is None:
        return recommend(typed_request(model, **words))
    named = words.get("gpu")
    gpu = None if named is None else str(named)
    if gpu is None or len(find_gpus(gpu)) != 1:
        raise BadInput(
            "--gpus counts cards of one kind, and --gpu names " + ("none" if gpu is None else gpu),
            "name one card: --gpu H100 --gpus auto",
        )
    last: Request | None = None
    tried = 0
    for count in _counts(asked):
        words["gpu"] = gpu if count == 1 else f"{count}x{gpu}"
        try:
            request = typed_request(model, **words)
            return recommend(request, explain=False)
        except NothingFits:
            last, tried = request, count
        except BadInput:
            if last is None:
                raise
            break  # an engine of one card, or no way to share the model among so many
    assert last is not None
    try:
        return recommend(last)  # which says why it cannot
    except NothingFits as error:
        if str(asked).strip().lower() != "auto" or tried == 1:
            raise
        said = f"not even with {tried} cards: {error.message}"
        raise NothingFits(said, error.hint, error.details) from None


def _counts(asked: str | int) -> tuple[int, ...]:
    text = str(asked).strip().lower()
    if text == "auto":
        return COUNTS
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST:
        raise BadInput(f"no number of cards: --gpus {asked!r}", f"auto, or 1 to {MOST}")
    return (int(text),)
