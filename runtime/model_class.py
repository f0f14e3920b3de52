"""Whether transformers has a class for a model, and the runtime's attention a place in it.

Asked of the config, before any weight is read. The runtime takes a model's attention over by
transformers' AttentionInterface and keeps keys and values, nothing else: a class whose attention
goes another way (Falcon), or that carries states from token to token (RecurrentGemma), would run
on something else than the packed cache, or die on its first pass.
"""

from typing import Any

from ..planner.errors import BadInput
from ..planner.models.spec import STATEFUL_RUN

_HINT = "--engine transformers runs what transformers can"


def check_class(config: Any, name: str) -> None:
    """Raise BadInput, naming the type, for a transformers config that the runtime cannot run."""
    kind = causal_class(config, name)
    if kind is None:  # a class of the repository's own code: nothing is known of it
        return
    if (
        config.get_text_config().model_type in STATEFUL_RUN
    ):  # held to transformers, whatever the class says of itself
        return
    if getattr(kind, "_is_stateful", False):
        raise _refused(config, name, "it carries states from token to token, not only a KV cache")
    if not getattr(kind, "_supports_attention_backend", False):
        raise _refused(config, name, "its attention is not transformers' exchangeable one")


def causal_class(config: Any, name: str) -> Any:
    """transformers' causal LM class of a config; None where the repository's own code brings it.

    Raises BadInput where there is none.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    try:
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:
        pass
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return None
    raise BadInput(
        f"transformers has no causal LM for {name} ({config.model_type})",
        "choose a text model, or plan only",
    )


def _refused(config: Any, name: str, why: str) -> BadInput:
    return BadInput(f"the kvpareto runtime cannot run {name} ({config.model_type}): {why}", _HINT)
