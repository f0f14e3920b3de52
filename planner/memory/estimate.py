"""Total memory of one configuration, term by term, and the interval it should fall into.

    total = weights + KV cache + activation peak + overhead

is what the device reports as used at the worst moment of prefill and decode. `activation` is
what torch's allocator counts at that moment beyond weights and the full cache: live tensors of
the forward pass, and storage kept alive that the cache no longer shows.
"""

from dataclasses import replace

from ..engine import Activation, Engine, Interval, KVBytes
from ..formats.configuration import Configuration
from ..hardware.gpus import Hardware
from ..light_dataclass import dataclass
from ..models.spec import ModelSpec, MoEFFN, RecurrentState
from ..workload import Workload
from . import overhead
from .allocator_slack import slack_bytes, slack_terms
from .kv_cache import kv_bytes
from .named_weights import weights_of

# Live tensors are derived, not fitted; what the derivation leaves out (kernels' scratch memory,
# blocks of the allocator that are not split) has been below this part of the activation peak.
MODEL_ERROR = 0.03
NOT_UNDERSTOOD, UNKNOWN_EXPERTS, UNKNOWN_STATES = 0.30, 0.50, 3.0
"""The same part where the model's code is not known; its least is then nothing at all. Of the known
types with experts and with recurrent layers, read as if nobody knew them, the worst take 0.44
(GLM-4.5V) and 2.95 (Granite 4's Mamba-2) more of prompts in chunks than plain layers do."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """All in bytes.

    `allocated_resident`, `allocated_peak`: what torch's allocator should report after prefill
    and at its high-water mark; they include library workspaces and leave the CUDA context out.
    `total_low` and `total_high` hold `total` at 95 %. `overhead` is context, workspaces and
    allocator slack; `context_provenance` says whether the context was measured on this GPU.
    """

    weights: int
    kv: int
    activation: int
    overhead: int
    total: int
    total_low: int
    total_high: int
    allocated_resident: int
    allocated_peak: int
    kv_bytes_per_token: int
    kv_fixed_bytes: int
    prefill_peak: int
    decode_peak: int
    context_provenance: str
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know about them."""
    ends: tuple["MemoryEstimate", ...] = ()
    """The estimates of the model's other readings, where it is not understood: `total_low` and
    `total_high` hold them all."""

    def range_of(self, name: str) -> tuple[int, int]:
        """A term at least and at most over all readings of the model."""
        sizes = [getattr(one, name) for one in (self, *self.ends)]
        return min(sizes), max(sizes)

    @property
    def paper_total(self) -> int:
        """Weights, KV and activation peak: the sum that the KV Pareto paper reports."""
        return self.weights + self.kv + self.activation


def estimate(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
) -> MemoryEstimate:
    """Memory of `config`. Raises BadInput where the engine cannot run it.

    Of a model that is not understood, the interval holds those of all its readings.
    """
    expected = _of_reading(spec, config, workload, engine, hardware)
    return widened_to_ends(expected, spec, config, workload, engine, hardware)


def widened_to_ends(
    expected: MemoryEstimate,
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
) -> MemoryEstimate:
    """The estimate `expected` of `spec`, its interval opened to hold the model's other readings."""
    if not spec.ends:
        return expected
    ends = tuple(_of_reading(end, config, workload, engine, hardware) for end in spec.ends)
    return replace(
        expected,
        total_low=min(one.total_low for one in (expected, *ends)),
        total_high=max(one.total_high for one in (expected, *ends)),
        ends=ends,
    )


def _of_reading(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
) -> MemoryEstimate:
    """Memory of `config` as `spec` is read."""
    engine.check_formats(config)
    stored = weights_of(engine.loaded(spec), config.weight_bits, config.weight_format)
    kv = kv_bytes(spec, config, workload, engine)
    live = engine.activation(spec, config, workload, hardware)
    estimated = assemble(spec, config, workload, engine, hardware, stored.total, kv, live)
    return replace(estimated, notes=(*stored.notes, *estimated.notes))


def assemble(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
    weights: int,
    kv: KVBytes,
    live: Activation,
) -> MemoryEstimate:
    """The estimate from its terms, for callers that know them already."""
    workspace = overhead.workspace(spec, hardware)
    context = engine.context(hardware)
    peak = max(live.prefill_peak, live.decode_peak, kv.total)
    beyond, room = peak - kv.total, max(live.room, kv.total)
    of = engine.slack(config, hardware)
    slack = Interval(
        *(int(slack_bytes(slack_terms(of, end), room + workspace, beyond)) for end in range(3))
    )
    taken = weights + room + workspace
    error = int(activation_error(spec) * beyond)
    least = taken + slack.low - error if spec.understood else weights + kv.total + workspace
    return MemoryEstimate(
        weights=weights,
        kv=kv.total,
        activation=beyond,
        overhead=room - peak + workspace + context.expected + slack.expected,
        total=taken + context.expected + slack.expected,
        total_low=least + context.low,
        total_high=taken + context.high + slack.high + error,
        allocated_resident=weights + live.resident + workspace,
        allocated_peak=weights + peak + workspace,
        kv_bytes_per_token=kv.per_token,
        kv_fixed_bytes=kv.fixed,
        prefill_peak=weights + live.prefill_peak + workspace,
        decode_peak=weights + live.decode_peak + workspace,
        context_provenance=overhead.context_provenance(hardware),
        notes=(*_of_recurrent_layers(spec, engine), *_of_whole_prompts(spec, config, workload)),
    )


def activation_error(spec: ModelSpec) -> float:
    """The part of the activation peak that its derivation may leave out."""
    if spec.understood:
        return MODEL_ERROR
    if any(isinstance(mixer, RecurrentState) for mixer, _ in spec.mixer_counts):
        return UNKNOWN_STATES
    experts = any(isinstance(layer.ffn, MoEFFN) for layer in spec.layers)
    return UNKNOWN_EXPERTS if experts else NOT_UNDERSTOOD


def _of_whole_prompts(
    spec: ModelSpec, config: Configuration, workload: Workload
) -> tuple[str, ...]:
    if spec.understood or (config.chunk is not None and config.chunk < workload.context):
        return ()
    return (
        f"what layers of {spec.model_type}, which is not known, keep of a whole prompt is taken "
        "to be what plain ones keep: experts and recurrent layers may keep many times as much; "
        "the upper end is for prompts in chunks (+pc1024)",
    )


def _of_recurrent_layers(spec: ModelSpec, engine: Engine) -> tuple[str, ...]:
    if any(isinstance(mixer, RecurrentState) for mixer, _ in spec.mixer_counts):
        code = (
            "torch code since 5.20; older versions need more, Mamba-2 ten times as much, and"
            if engine.recent_scans
            else "5.17's torch code; newer versions and"
        )
        return (
            f"activation of recurrent layers is that of transformers' {code} the optional "
            "kernels (causal-conv1d, mamba-ssm, fla) less",
        )
    return ()
