"""Every configuration of a space with what it costs: memory, accuracy, latency, as arrays."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..accuracy import predict as accuracy
from ..accuracy.format_arrays import format_arrays
from ..accuracy.formula import FormatArrays
from ..accuracy.prediction import Accuracy, AccuracyGrid
from ..engine import Engine, KVBytes
from ..formats.configuration import Configuration
from ..formats.space import Space
from ..hardware.gpu_names import find_gpu
from ..hardware.gpus import Hardware
from ..latency import predict as latency
from ..latency import roofline
from ..latency.interval import profile_of
from ..latency.job import ConfigurationAxes
from ..light_dataclass import dataclass
from ..memory.estimate import MemoryEstimate, assemble, estimate, widened_to_ends
from ..memory.estimate_space import SpaceMemory, memory_table
from ..memory.kv_cache import kv_bytes
from ..models.spec import ModelSpec
from ..placement import Placement
from ..workload import Workload
from .enumerate import enumerate_space, protection_presets
from .measured_places import with_measured
from .point_arrays import PointArrays

REFERENCE_GPU = "NVIDIA GeForce RTX 4090"
"""Whose roofline orders configurations by time where no GPU is named: its 164 operations a byte
lie in the middle of the GPUs people own. Its seconds are not shown."""


@dataclass(frozen=True)
class Point:
    """One configuration with all predictions. `latency` is None where no GPU was named."""

    config: Configuration
    workload: Workload
    memory: MemoryEstimate
    accuracy: Accuracy
    latency: latency.Latency | None
    placement: Placement | None = None
    """Where its parts lie, of engines that place them."""

    @property
    def seconds(self) -> float | None:
        """Predicted time for the whole prompt and output."""
        if self.latency is None:
            return None
        return self.latency.ttft_s + self.workload.output * self.latency.tpot_s


@dataclass(frozen=True, eq=False)
class EvaluatedSpace:
    """A space and its arrays; flat indices run over weights x formats x chunks."""

    spec: ModelSpec
    workload: Workload
    engine: Engine
    hardware: Hardware | None
    space: Space
    memory: SpaceMemory
    axes: ConfigurationAxes
    points: PointArrays
    task: str | None = None

    def points_at(self, indices: Sequence[int]) -> list[Point]:
        """The configurations at flat `indices` with all predictions, from the arrays."""
        configs = [self.space.configuration(i) for i in indices]
        accuracies = accuracy.predict_many(
            self.spec, configs, self.workload.context, task=self.task
        )
        latencies = self._latencies(indices)
        sizes: dict[tuple[int, int], KVBytes] = {}
        points = []
        for i, config, kept, seconds in zip(indices, configs, accuracies, latencies, strict=True):
            w, f, c = self.place(i)
            key = f, c % self.memory.kv.shape[2]  # all that KV bytes depend on
            if key not in sizes:
                sizes[key] = kv_bytes(self.spec, config, self.workload, self.engine)
            weights, live = int(self.memory.weights[w, 0, 0]), self.memory.live(w, f, c)
            terms = weights, sizes[key], live
            how = self.workload, self.engine, self.hardware
            size = widened_to_ends(
                assemble(self.spec, config, *how, *terms), self.spec, config, *how
            )
            points.append(Point(config, self.workload, size, kept, seconds))
        return points

    def _latencies(self, indices: Sequence[int]) -> list[latency.Latency | None]:
        """Seconds with their intervals, whose ends need sweeps of their own, over few formats."""
        if self.hardware is None:
            return [None] * len(indices)
        places = [self.place(i) for i in indices]
        formats = sorted({f for _, f, _ in places})
        number = {f: i for i, f in enumerate(formats)}
        axes = self.axes.at(formats)
        each = [self._swept(self.spec, axes, self.hardware)]
        for reading in self.spec.ends:
            firsts = (self.space.configuration(f * self.space.shape[2]) for f in formats)
            sizes = [kv_bytes(reading, one, self.workload, self.engine).total for one in firsts]
            few = replace(axes, kv_bytes=np.array(sizes, dtype=float))
            each.append(self._swept(reading, few, self.hardware))
        return [
            latency.widened([latency.with_interval(*ends, w, number[f], c) for ends in each])
            for w, f, c in places
        ]

    def _swept(
        self, reading: ModelSpec, axes: ConfigurationAxes, hardware: Hardware
    ) -> tuple[str, list[roofline.Seconds]]:
        """What seconds of one reading are based on, and a sweep for each end of the interval."""
        profile = profile_of(self.engine, hardware, reading)
        model, work = self.engine.loaded(reading), self.workload
        return profile.kind, [
            roofline.sweep(model, work, hardware, end.prompts, axes, end.steps)
            for end in profile.ends
        ]

    def weight_sizes(self) -> list[int]:
        """Bytes of each of the space's weights."""
        return [int(size) for size in self.memory.weights.ravel()]

    def place(self, index: int) -> tuple[int, int, int]:
        """(weights, format, chunk) of a flat index."""
        w, f, c = np.unravel_index(index, self.space.shape)
        return int(w), int(f), int(c)


def evaluate(
    spec: ModelSpec,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
    task: str | None = None,
) -> EvaluatedSpace:
    """Predict everything for every configuration the engine can run. `task`: the kind whose
    retention counts; None: the weakest generated kind."""
    spec = engine.dequantized(spec)
    space = enumerate_space(spec, workload, engine, protection_presets(spec))
    sizes = memory_table(spec, space, workload, engine, hardware)
    grid = accuracy_of(spec, space, workload.context, task)
    card = hardware or find_gpu(REFERENCE_GPU)
    axes = ConfigurationAxes.of_space(space, sizes.kv[0, :, 0].astype(float))
    seconds = roofline.sweep(
        engine.loaded(spec), workload, card, profile_of(engine, card, spec).coefficients, axes
    )
    shape = space.shape
    retention, low = with_measured(spec, space, workload.context, grid, task)
    trusted = grid.provenance == "calibrated"
    time = seconds.ttft + workload.output * seconds.tpot
    points = PointArrays(
        memory=sizes.total_high.ravel(),
        low=low.ravel(),
        retention=retention.ravel(),
        ttft=np.broadcast_to(seconds.ttft, shape).ravel(),
        tpot=np.broadcast_to(seconds.tpot, shape).ravel(),
        time=np.broadcast_to(time, shape).ravel(),
        complexity=space.complexity.ravel(),
        allowed=(trusted | ~space.two_bits).ravel(),
        usual=(space.usual_chunk & ~space.two_bits).ravel(),
    )
    return EvaluatedSpace(spec, workload, engine, hardware, space, sizes, axes, points, task)


def predict_point(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
    task: str | None = None,
) -> Point:
    """All predictions of one configuration."""
    spec = engine.dequantized(spec)
    return Point(
        config=config,
        workload=workload,
        memory=estimate(spec, config, workload, engine, hardware),
        accuracy=accuracy.predict(spec, config, workload.context, task=task),
        latency=latency.predict(spec, config, workload, engine, hardware),
    )


def accuracy_of(spec: ModelSpec, space: Space, context: int, task: str | None) -> AccuracyGrid:
    """Retention of the space's weights with its cache formats, of `task` or the weakest kind."""
    return accuracy.predict_grid(
        spec,
        space.weights,
        format_arrays_of(spec, space),
        context,
        weight_formats=space.weight_formats,
        protections=space.protections,
        protection=space.protection,
        task=task,
    )


def format_arrays_of(spec: ModelSpec, space: Space) -> FormatArrays:
    """The space's cache formats as the accuracy's formula takes them."""
    granularity = [layout.granularity for layout in space.layouts]
    return format_arrays(
        spec,
        k_bits=space.k_bits,
        v_bits=space.v_bits,
        granularity=[granularity[i] for i in space.layout],
        group_size=space.of_layout("group_size"),
        block_tokens=space.of_layout("block_tokens"),
        smoothing=space.of_layout("smoothing"),
        rotation=space.of_layout("rotation"),
        residual=space.of_layout("residual"),
        kv_names=space.kv_formats,
    )
