"""What a reader of one configuration's numbers should know: of the prompt, the chunk, the cache."""

from math import ceil

from ..engine import Engine
from ..formats.configuration import Configuration
from ..formats.without_effect import without_effect
from ..models.spec import Attention, LatentAttention, ModelSpec
from ..units import format_tokens
from ..workload import Workload


def configuration_notes(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    engine: Engine,
) -> list[str]:
    """Sentences, the most important first."""
    return [
        *beyond_positions(spec, workload),
        *without_effect(config, workload),
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
