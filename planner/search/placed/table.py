"""Plans of engines that may leave a part of the model in host memory: placed, then compared.

Each configuration is placed within the budget of the device and that of the host
(`Engine.place`); what decides among them is the same as for any other engine.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...accuracy import predict as accuracy
from ...accuracy.prediction import Accuracy
from ...engine import Engine
from ...errors import BadInput
from ...formats.configuration import Configuration
from ...formats.space import Space
from ...hardware.gpus import Hardware
from ...latency.predict import Latency
from ...light_dataclass import dataclass
from ...memory.estimate import MemoryEstimate
from ...models.spec import ModelSpec
from ...placement import Machine, Placement
from ...serving import Parallel
from ...units import format_bytes
from ...workload import Workload
from ..enumerate import enumerate_space
from ..evaluate import Point, accuracy_of
from ..gpu_memory import budget_of
from ..point_arrays import PointArrays
from ..request import Request

PACE = 3.0
"""How many times slower than the fastest a point may decode and still be preferred."""
ANY = 2**60
"""A budget that holds everything."""
NEVER = 1e9
"""Seconds of what does not run."""
DERIVED = "derived from bandwidths; no run behind it"

SERVED = {"fitted": "fitted to runs of the engine on cards of this kind"}


@dataclass(frozen=True, eq=False)
class PlacedSpace:
    """A space whose configurations are placed, one after the other; as EvaluatedSpace."""

    spec: ModelSpec
    workload: Workload
    engine: Engine
    hardware: Hardware | None
    space: Space
    points: PointArrays
    placements: tuple[Placement | None, ...]
    """None where the engine refuses a configuration that its axes have."""
    request: Request

    def points_at(self, indices: Sequence[int]) -> list[Point]:
        """The configurations at flat `indices` with all predictions."""
        configs = [self.space.configuration(i) for i in indices]
        task = self.request.task
        kept = accuracy.predict_many(self.spec, configs, self.workload.context, task=task)
        return [
            point_of(config, self.workload, self._shown(i), one)
            for i, config, one in zip(indices, configs, kept, strict=True)
        ]

    def _shown(self, index: int) -> Placement:
        """The placement; of what does not fit, that within a budget of what it needs."""
        placement, config = self.placements[index], self.space.configuration(index)
        if placement is None:
            return placement_of(self.request, config, self.workload)
        if placement.fits or self.request.engine.serves:
            return placement
        for more in (1.0, 1.02, 1.05, 1.15):
            asked = replace(self.request, budget=int(placement.needed * more))
            placed = placement_of(asked, config, self.workload)
            if placed.fits:
                return placed
        return placement

    def weight_sizes(self) -> list[int]:
        """Bytes of the weights, wherever they are, for each of the space's."""
        each = len(self.placements) // len(self.space.weights)
        firsts = self.placements[::each]
        return [p.device.weights + p.host.weights if p is not None else ANY for p in firsts]


def placement_of(request: Request, config: Configuration, workload: Workload) -> Placement:
    """Where one configuration lies within the request's budgets."""
    return place(request.engine, request.spec, config, workload, request.machine)


def place(
    engine: Engine, spec: ModelSpec, config: Configuration, workload: Workload, machine: Machine
) -> Placement:
    """Where one configuration lies. Of a model that is not understood the ends hold every reading,
    and all of them must fit."""
    placement = engine.place(spec, config, workload, machine)
    if not spec.readings:
        return placement
    ends = [engine.place(end, config, workload, machine) for end in spec.ends]
    every = (placement, *ends)
    return replace(
        placement,
        device_ends=(
            min(one.device_ends[0] for one in every),
            max(one.device_ends[1] for one in every),
        ),
        needed=max(one.needed for one in every),
        fits=all(one.fits for one in every),
    )


def space_of(request: Request) -> Space:
    """Everything that the engine can run. Raises BadInput where that is nothing."""
    spec, engine = request.spec, request.engine
    if (obstacle := engine.refuses(spec, request.hardware)) is not None:
        raise BadInput(
            f"{engine.name} cannot be planned for {spec.name}: {obstacle}", engine.instead(spec)
        )
    return enumerate_space(spec, request.workload, engine.on(request.machine), ((),))


def evaluate_placed(request: Request) -> PlacedSpace:
    """Place and predict everything that the engine can run."""
    spec, workload, engine = request.spec, request.workload, request.engine
    space = space_of(request)
    placements = _placements(request, space)
    runs = np.array([placement is not None for placement in placements])
    grid = accuracy_of(spec, space, workload.context, request.task)
    shape = space.shape
    times = np.array([_times(p) for p in placements])
    points = PointArrays(
        memory=np.array([p.needed if p is not None else ANY for p in placements], dtype=np.int64),
        low=np.broadcast_to(grid.low[:, :, None], shape).ravel() * runs,
        retention=np.broadcast_to(grid.retention[:, :, None], shape).ravel() * runs,
        ttft=times[:, 0],
        tpot=times[:, 1],
        time=times[:, 0] + workload.output * times[:, 1],
        complexity=space.complexity.ravel(),
        allowed=runs,
        usual=np.array([captures_graphs(placement) for placement in placements])
        & ((space.usual_chunk | engine.serves) & ~space.two_bits).ravel()
        & _keeps_pace(request, placements, times[:, 1], grid.low, shape),
    )
    return PlacedSpace(spec, workload, engine, request.hardware, space, points, placements, request)


def _placements(request: Request, space: Space) -> tuple[Placement | None, ...]:
    """Every configuration placed. An engine of several cards may refuse some, as they share the
    model; where it refuses all, the first reason is raised."""
    placements: list[Placement | None] = []
    refused: BadInput | None = None
    for i in range(len(space)):
        try:
            placements.append(placement_of(request, space.configuration(i), request.workload))
        except BadInput as error:
            if not request.engine.serves:
                raise
            refused = refused or error
            placements.append(None)
    if refused is not None and not any(placements):
        raise refused
    return tuple(placements)


def captures_graphs(placement: Placement | None) -> bool:
    """Whether nothing keeps a server from capturing CUDA graphs: without them every step waits for
    the host."""
    served = placement.serving if placement is not None else None
    return served is None or "enforce_eager" not in dict(served.flags)


def _keeps_pace(
    request: Request,
    placements: Sequence[Placement | None],
    tpot: accuracy.Floats,
    low: accuracy.Floats,
    shape: tuple[int, int, int],
) -> np.ndarray:
    """Points that decode at no less than a PACE-th of the fastest's rate, of those that fit and are
    safe: layers in host memory cost far more time than bits that nobody misses."""
    loss = request.accepted_loss
    safe = np.broadcast_to(low[:, :, None], shape).ravel() >= (0 if loss is None else 1 - loss)
    fast = tpot[safe & np.array([p is not None and p.fits for p in placements])]
    return tpot <= PACE * fast.min(initial=np.inf)


def _times(placement: Placement | None) -> tuple[float, float]:
    """Expected seconds; without a device that is named, bytes that stand for them."""
    if placement is None:
        return NEVER, NEVER
    if placement.ttft is not None and placement.tpot is not None:
        return placement.ttft[0], placement.tpot[0]
    moved = placement.device.total + 10.0 * placement.host.total
    return moved / 1e10, moved / 1e12


def point_of(
    config: Configuration, workload: Workload, placement: Placement, kept: Accuracy
) -> Point:
    """A placed configuration with all predictions."""
    memory = memory_of(placement, workload)
    return Point(config, workload, memory, kept, latency_of(placement), placement)


def placed_point(request: Request, config: Configuration, workload: Workload) -> Point:
    """All predictions of one configuration, placed."""
    kept = accuracy.predict(request.spec, config, workload.context, task=request.task)
    return point_of(config, workload, placement_of(request, config, workload), kept)


def placed_anyway(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    gpus: tuple[Hardware, ...],
    task: str | None,
    parallel: Parallel | None = None,
) -> Point:
    """One configuration with all layers on its cards, whatever those have; on the processor where
    none is named. A server takes a part of its cards, the one that a plan for them gives it."""
    engine.check_formats(config)
    given = [budget_of(gpu, None) if engine.serves else (ANY, 0) for gpu in gpus]
    shares = tuple(size for size, _ in given)
    placement = place(engine, spec, config, workload, Machine(gpus, shares, parallel=parallel))
    if kept_back := sum(kept for _, kept in given):
        left = f"{format_bytes(kept_back)} are left to a desktop, as in a plan without --reserve"
        placement = replace(placement, notes=(*placement.notes, left))
    kept = accuracy.predict(spec, config, workload.context, task=task)
    return point_of(config, workload, placement, kept)


def memory_of(placement: Placement, workload: Workload) -> MemoryEstimate:
    """The memory of the device, or of the host where there is none."""
    share = placement.host if placement.on_host_only else placement.device
    low, high = placement.device_ends
    total = share.total + placement.overhead
    whole = placement.device.kv + placement.host.kv
    growth = placement.kv_bytes_per_token * share.kv // max(1, whole)
    return MemoryEstimate(
        weights=share.weights,
        kv=share.kv,
        activation=share.compute,
        overhead=placement.overhead,
        total=total,
        total_low=low,
        total_high=high,
        allocated_resident=share.total,
        allocated_peak=share.total,
        kv_bytes_per_token=growth,
        kv_fixed_bytes=share.kv - growth * (workload.mean_context + workload.output),
        prefill_peak=share.total,
        decode_peak=share.total,
        context_provenance="derived",
        notes=placement.notes,
    )


def latency_of(placement: Placement) -> Latency | None:
    """Seconds with their intervals; None where no device is named."""
    if placement.ttft is None or placement.tpot is None:
        return None
    (ttft, ttft_low, ttft_high), (tpot, tpot_low, tpot_high) = placement.ttft, placement.tpot
    served = placement.serving
    kind = SERVED.get(served.speed_kind, DERIVED) if served is not None else DERIVED
    return Latency(ttft, tpot, kind, ttft_low, ttft_high, tpot_low, tpot_high)
