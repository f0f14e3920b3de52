"""Parts of a configuration that change nothing, or the reverse of what is meant, for a workload.

They are accepted, since one configuration is tried at many contexts; a reader of its numbers is
told.
"""

from ..units import format_tokens
from ..workload import Workload
from .configuration import Configuration


def without_effect(config: Configuration, workload: Workload) -> tuple[str, ...]:
    """A sentence for each such part."""
    notes = []
    prompt, tokens = workload.context, workload.tokens
    if config.chunk is not None and config.chunk >= prompt:
        notes.append(
            f"+pc{config.chunk} cuts nothing: the prompt of {format_tokens(prompt)} tokens is one "
            "chunk"
        )
    if config.quantizes_kv:
        kept = config.sinks + config.residual
        names = [f"+sink{config.sinks}"] * bool(config.sinks)
        names += [f"+res{config.residual}"] * bool(config.residual)
        if kept >= tokens:
            notes.append(
                f"{' and '.join(names)} keep all {format_tokens(tokens)} tokens in 16 bits: no key "
                "or value is quantized"
            )
        elif kept >= prompt:
            notes.append(
                f"{' and '.join(names)} keep the whole prompt of {format_tokens(prompt)} tokens in "
                "16 bits: only what is generated is quantized"
            )
    elif config.sinks or config.residual:
        notes.append("+sink and +res change nothing: all keys and values have 16 bits")
    return (*notes, *_protection(config))


def _protection(config: Configuration) -> tuple[str, ...]:
    kept = config.protection
    if kept is None:
        return ()
    lowered = [
        f"{side} from {rest} to {own} bits"
        for side, own, rest in (
            ("keys", kept.k_bits, config.k_bits),
            ("values", kept.v_bits, config.v_bits),
        )
        if own < rest
    ]
    if lowered:
        return (f"+protect lowers its layers' {' and '.join(lowered)}: the reverse of protection",)
    if (kept.k_bits, kept.v_bits) == (config.k_bits, config.v_bits):
        return ("+protect changes nothing: the other layers have the same bits",)
    return ()
