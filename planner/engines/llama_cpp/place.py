"""What goes where: all on the device, experts or layers in host memory, or all on the processor.

llama.cpp puts the last -ngl layers on the device, the head counting as one, and a layer's cache
beside its weights; with --n-cpu-moe N the experts of the first N layers stay in host memory. The
token table is always looked up there. Experts are moved first: a token reads few of them, and
attention stays where the cache is.
"""

from bisect import bisect_left
from dataclasses import replace

from ...engine import Interval
from ...formats.configuration import Configuration
from ...hardware.gpus import Hardware
from ...light_dataclass import dataclass
from ...models.spec import ModelSpec, MoEFFN
from ...placement import Placement, Share
from ...workload import Workload
from .cache_bytes import growth
from .command import command_flags, command_line, file_name, file_words, modelfile
from .parts import Parts, known_graph, parts_of, run_settings, weight_name
from .speed import Load, seconds

HOST_PROCESS = 80_000_000
"""Bytes of the process beside buffers: code, vocabulary, graphs."""
GRAPH_ERROR, UNKNOWN_GRAPH_ERROR = 0.02, 0.5
"""Parts of the compute buffer: the worst where shapes are held to runs, and where they are not."""
DEVICE_CONTEXT = Interval(420_000_000, 150_000_000, 700_000_000)
"""Bytes of the driver, the kernels and scratch pools of a CUDA build; derived, no card was run."""
UNIFIED_CONTEXT = Interval(120_000_000, 20_000_000, 300_000_000)


@dataclass(frozen=True, slots=True)
class _Split:
    """The last `layers` layers on the device, experts of the first `experts` layers not."""

    layers: int
    experts: int


def place(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    hardware: Hardware | None,
    budget: int | None,
    ram: int | None,
) -> Placement:
    """Within `budget` bytes of a device (None: there is none) and `ram` bytes of host memory (None:
    nobody said, and layers stay on the device). Raises BadInput for formats it does not have."""
    parts = parts_of(spec, config, workload)
    limits = _Limits(budget, ram, hardware is not None and hardware.unified, _graph_error(spec))
    asked = spec, config, workload, hardware, parts, limits
    whole = _Split(len(parts.layers) if budget is not None else 0, 0)
    sized = _sized(parts, whole, limits)
    if sized.fits or budget is None or ram is None:
        return _finished(*asked, whole, sized)
    splits = _fewer(parts)
    # Each has less on the device than the one before it, and more in host memory.
    first = bisect_left(splits, True, key=lambda s: _sized(parts, s, limits).high <= budget)
    chosen = splits[min(first, len(splits) - 1)]
    best = _sized(parts, chosen, limits)
    if not best.fits:
        host_least = parts.embedding + parts.host_compute + parts.output + HOST_PROCESS
        needed = max(budget + 1, sized.high - max(0, ram - host_least))
        best = replace(best, needed=needed)
    return _finished(*asked, chosen, best)


@dataclass(frozen=True, slots=True)
class _Limits:
    """The budgets of place(), whether they are one memory, and the graph's part of error."""

    budget: int | None
    ram: int | None
    unified: bool
    error: float


@dataclass(frozen=True, slots=True)
class _Sized:
    """A split's bytes; `low`, `high`: ends of the device's total, or of the host's alone."""

    device: Share
    host: Share
    low: int
    high: int
    overhead: int
    fits: bool
    needed: int


def _graph_error(spec: ModelSpec) -> float:
    return GRAPH_ERROR if known_graph(spec) else UNKNOWN_GRAPH_ERROR


def _fewer(parts: Parts) -> list[_Split]:
    """Ever less on the device: experts first, if there are any, then whole layers."""
    layers = len(parts.layers)
    moved = [i + 1 for i in range(layers) if parts.experts[i]]
    experts = [_Split(layers, count) for count in moved]
    every = moved[-1] if moved else 0
    return [*experts, *(_Split(count, every) for count in range(layers - 1, -1, -1))]


def _sized(parts: Parts, split: _Split, limits: _Limits) -> _Sized:
    budget, ram = limits.budget, limits.ram
    if budget is None:
        host = Share(parts.weights, sum(parts.caches), parts.compute + parts.output)
        high = host.total + HOST_PROCESS + int(limits.error * parts.compute)
        fits = ram is None or high <= ram
        return _Sized(Share(0, 0, 0), host, host.total, high, HOST_PROCESS, fits, high)
    first = len(parts.layers) - split.layers
    moved = sum(parts.experts[first : max(first, split.experts)])
    # Host weights of a long pass are multiplied on the device, in a copy of one tensor.
    copied = 0
    if first or moved:
        copied = max(e or w for e, w in zip(parts.experts, parts.layers, strict=True)) // 3
    weights = sum(parts.layers[first:]) - moved + parts.head
    if limits.unified and not parts.tied:
        weights += parts.embedding
    device = Share(weights, sum(parts.caches[first:]), parts.compute + copied)
    host = Share(
        parts.embedding + sum(parts.layers[:first]) + moved,
        sum(parts.caches[:first]),
        parts.host_compute + parts.output + (parts.compute if first else 0),
    )
    context = UNIFIED_CONTEXT if limits.unified else DEVICE_CONTEXT
    slip = int(limits.error * parts.compute) + copied
    low = device.total - parts.host_compute - slip + context.low
    high = device.total + slip + context.high
    fits = high <= budget
    if ram is not None and not limits.unified:
        fits = fits and host.total + HOST_PROCESS <= ram
    return _Sized(device, host, low, high, context.expected, fits, high)


def _finished(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    hardware: Hardware | None,
    parts: Parts,
    limits: _Limits,
    split: _Split,
    sized: _Sized,
) -> Placement:
    """The placement of a split: its seconds, its flags, and what to know of it."""
    run, budget = run_settings(spec, config, workload), limits.budget
    count = len(parts.layers)
    first = count - split.layers
    load = _load(spec, parts, split, first, split.layers > 0)
    timed = hardware is not None or budget is None
    ttft, tpot = (
        seconds(spec, load, hardware, workload.context, run.micro_batch, workload.batch)
        if timed
        else (None, None)
    )
    mix = weight_name(spec, config)
    flags = command_flags(run, file_name(spec, mix), count, split.layers, split.experts, budget)
    return Placement(
        device=sized.device,
        host=sized.host,
        layers=count,
        device_layers=split.layers if budget is not None else 0,
        host_experts=split.experts,
        overhead=sized.overhead,
        device_ends=(sized.low, sized.high),
        kv_bytes_per_token=growth(spec, run),
        fits=sized.fits,
        needed=sized.needed,
        command=command_line(flags),
        flags=flags,
        file=file_words(spec, mix),
        file_bytes=parts.file,
        ttft=ttft,
        tpot=tpot,
        notes=_notes(spec, parts, run.keys, run.values, hardware),
        ollama=tuple(modelfile(flags).items()),
    )


def _load(spec: ModelSpec, parts: Parts, split: _Split, first: int, device: bool) -> Load:
    experts = [layer.ffn for layer in spec.layers if isinstance(layer.ffn, MoEFFN)]
    share = experts[0].top_k / experts[0].experts if experts else 1.0
    on_device = in_host = moved = 0.0
    for index, (size, routed) in enumerate(zip(parts.layers, parts.experts, strict=True)):
        plain, active = size - routed, routed * share
        if index < first:
            in_host += plain + active
            moved += size
        elif index < split.experts:
            on_device += plain
            in_host += active
            moved += routed
        else:
            on_device += plain + active
    if device:
        on_device += parts.head
    else:
        in_host += parts.head
    return Load(
        device_weights=on_device,
        host_weights=in_host,
        device_kv=sum(parts.caches[first:]),
        host_kv=sum(parts.caches[:first]),
        host_all=moved,
        layers=split.layers,
    )


def _notes(
    spec: ModelSpec, parts: Parts, keys: str, values: str, hardware: Hardware | None
) -> tuple[str, ...]:
    notes = []
    if parts.derived:
        notes.append("bytes of weights are derived from llama-quantize's rule, not from a file")
    if not known_graph(spec):
        notes.append(
            f"llama.cpp's buffers for {spec.text_type or spec.model_type} are derived from graphs "
            "of other models: no run was held against them"
        )
    if hardware is not None and hardware.vendor == "nvidia" and keys != values:
        notes.append(
            "CUDA builds have fast attention for K and V of different types only with "
            "GGML_CUDA_FA_ALL_QUANTS=ON"
        )
    notes.append("seconds are derived from bandwidths, with no run of llama.cpp behind them")
    return tuple(notes)
