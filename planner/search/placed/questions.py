"""The table that answers a request: one device and an allocator, or placed on two sides."""

from typing import TYPE_CHECKING, Union

from ...formats.configuration import Configuration
from ...latency import predict as latency
from ...memory import estimate as memory
from ...workload import Workload
from ..evaluate import EvaluatedSpace, Point, evaluate, predict_point
from ..request import Request

if TYPE_CHECKING:
    from ...placement import Placement
    from ..point_arrays import Mask
    from .table import PlacedSpace

Table = Union[EvaluatedSpace, "PlacedSpace"]


def evaluate_request(request: Request) -> Table:
    """The table of what was asked."""
    if request.engine.places:
        from .table import evaluate_placed  # only for the engines that place

        return evaluate_placed(request)
    return evaluate(request.spec, request.workload, request.engine, request.hardware, request.task)


def needed_bytes(request: Request, config: Configuration, workload: Workload) -> int:
    """Bytes that the budget must have for `config`: the upper end."""
    if request.engine.places:
        return request.engine.needed(request.spec, config, workload, request.machine)
    how = request.engine, request.hardware
    return memory.estimate(request.spec, config, workload, *how).total_high


def placement_of(request: Request, config: Configuration, workload: Workload) -> "Placement":
    """Where one configuration lies within the request's budgets; of an engine that places."""
    from .table import placement_of

    return placement_of(request, config, workload)


def roomy_points(request: Request, table: Table, budget: int) -> "Mask | None":
    """Points that leave half of `budget` free, of engines that place ready files of several types;
    None for others."""
    if not request.engine.places or request.engine.serves or len(table.space.weights) < 2:
        return None
    from ..tie_breaking import ROOMY

    mask: Mask = table.points.memory <= ROOMY * budget
    return mask


def expected_seconds(
    request: Request, config: Configuration, workload: Workload
) -> tuple[float, float] | None:
    """TTFT and TPOT of one configuration; None where they are not predicted."""
    if request.engine.places:
        placed = placement_of(request, config, workload)
        if placed.ttft is None or placed.tpot is None:
            return None
        return placed.ttft[0], placed.tpot[0]
    if request.hardware is None:
        return None
    spec = request.engine.dequantized(request.spec)
    return latency.expected(spec, config, workload, request.engine, request.hardware)


def requested_point(request: Request, config: Configuration, workload: Workload) -> Point:
    """All predictions of one configuration under another workload."""
    if request.engine.places:
        from .table import placed_point

        return placed_point(request, config, workload)
    how = request.engine, request.hardware, request.task
    return predict_point(request.spec, config, workload, *how)
