"""The files that `report` is given: plans and receipts, told apart by what they hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...planner.errors import BadInput, one_line
from ..records.measuring import Unit
from ..saved_plan import SavedPlan, read_document, read_saved_plan


class _SourcePart(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, strict=True)


class _Term(_SourcePart):
    name: str
    unit: Unit
    predicted: float | None
    low: float | None
    high: float | None
    measured: float | None
    side: str | None


class _Receipt(_SourcePart):
    """What the page draws of a receipt."""

    schema_version: Literal[1] = Field(alias="schema")
    config: str
    context: int
    verdict: str
    terms: list[_Term]


@dataclass(frozen=True)
class Sources:
    """What there is to draw, in the order given."""

    plans: list[SavedPlan]
    receipts: list[Mapping[str, Any]]


def read_sources(paths: Sequence[Path]) -> Sources:
    """Plans and receipts of `paths`. Raises BadInput, naming the file, for one that is neither,
    and where there is no plan."""
    plans, receipts = [], []
    for path in paths:
        document = read_document(path)
        if "receipts" in document:  # of a sweep over budgets and contexts
            receipts += [_receipt(one, path) for one in document["receipts"]]
        elif "terms" in document:
            receipts.append(_receipt(document, path))
        else:
            plans.append(read_saved_plan(path))
    if not plans:
        raise BadInput(
            "a receipt alone", "name the plan too: kvpareto report plan.json receipt.json"
        )
    return Sources(plans, receipts)


def _receipt(document: object, path: Path) -> Mapping[str, Any]:
    try:
        return _Receipt.model_validate(document).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInput(
            f"{path.name} is not a receipt: {place}: {one_line(first['msg'], 80)}",
            "kvpareto verify --plan plan.json --save receipt.json writes one",
        ) from None
