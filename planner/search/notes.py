"""What a reader of one configuration's numbers should know: of the prompt, the chunk, the cache."""

from math import ceil

from ..engine import Engine
from ..formats.configuration import Configuration
from ..formats.without_effect import without_effect
from ..hardware.gpu_names import find_gpu
from ..hardware.gpus import Hardware
from ..latency import predict as latency
from ..models.spec import Attention, LatentAttention, ModelSpec, MoEFFN
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
        *engine.notes(spec, config, workload),
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
        "may answer nonsense beyond them whatever the configuration; "
        + _stretching(spec, workload.tokens),
    )


def ends_at_training(spec: ModelSpec, output: int) -> tuple[str, ...]:
    """For a longest context that memory does not end: what would reach beyond it."""
    most = spec.max_context
    if most is None:
        return ()
    return (
        f"the model was made for {most:,} tokens, {output:,} of which the answer takes: memory has "
        "room for more; " + _stretching(spec, None),
    )


def _stretching(spec: ModelSpec, tokens: int | None) -> str:
    """What extends a model beyond the positions it was trained on, so far as is known."""
    rotary = any(
        (isinstance(m, Attention) and m.rope) or isinstance(m, LatentAttention)
        for m, _ in spec.mixer_counts
    )
    if spec.max_context is None or not rotary:
        return "nothing is known that extends it"
    stretched = spec.extra.get("rope_scaling")
    if stretched:
        return f"its config stretches its positions already ({stretched}), and is trained for that"
    factor = "N" if tokens is None else f"{ceil(10 * tokens / spec.max_context) / 10:g}"
    what = f'{{"rope_type": "yarn", "factor": {factor}, '
    what += f'"original_max_position_embeddings": {spec.max_context}}}'
    end = f", for N times {spec.max_context:,} tokens" if tokens is None else ""
    return f'YaRN extends it: "rope_scaling": {what} in its config.json{end}, at some cost in score'


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
        f"as long as in one shot{seconds}: the host launches every packed expert again for each "
        "chunk; a longer chunk is faster",
    )
