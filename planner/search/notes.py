"""What a reader of one configuration's numbers should know: of the prompt, the chunk, the cache."""

from ..engine import Engine
from ..formats.configuration import Configuration
from ..formats.without_effect import without_effect
from ..hardware.gpu_names import find_gpu
from ..hardware.gpus import Hardware
from ..latency import predict as latency
from ..models.spec import ModelSpec, MoEFFN
from ..units import format_tokens
from ..workload import Workload
from .evaluate import REFERENCE_GPU

SLOW_CHUNKS = 1.5
"""Times as long as in one shot that a prefill in chunks may take without a word."""


def configuration_notes(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
) -> list[str]:
    """Sentences, the most important first."""
    return [
        *beyond_positions(spec, workload),
        *without_effect(config, workload),
        *_experts_in_chunks(spec, config, workload, engine, hardware),
        *engine.cache_notes(spec, config, workload),
    ]


def beyond_positions(spec: ModelSpec, workload: Workload) -> tuple[str, ...]:
    """Where prompt and output are more than the model was made for."""
    most = spec.max_context
    if most is None or workload.tokens <= most:
        return ()
    if workload.context > most:
        asked = f"{format_tokens(workload.context)} tokens"
    else:
        asked = f"{workload.context:,} + {workload.output:,} tokens of prompt and output"
    return (
        f"{asked} are more than the {most:,} that the model was made for: memory is right, but it "
        "may answer nonsense beyond them whatever the configuration",
    )


def _experts_in_chunks(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
    hardware: Hardware | None,
) -> tuple[str, ...]:
    """Packed experts are launched one after another for each chunk, whatever its length."""
    if engine.places or config.chunk is None or config.weight_bits == 16:
        return ()
    if not any(isinstance(layer.ffn, MoEFFN) for layer in spec.layers):
        return ()
    card = hardware or find_gpu(REFERENCE_GPU)
    whole = config.with_chunk(None)
    times = [latency.predict(spec, one, workload, engine, card) for one in (config, whole)]
    chunked, at_once = (one.ttft_s for one in times if one is not None)
    if chunked < SLOW_CHUNKS * at_once:
        return ()
    seconds = f", {chunked:,.0f} s instead of {at_once:,.0f}" if hardware is not None else ""
    return (
        f"prefill in chunks of {format_tokens(config.chunk)} takes {chunked / at_once:.0f} times "
        f"as long as in one shot{seconds}: the host launches every packed expert anew for each "
        "chunk; a longer chunk is faster",
    )
