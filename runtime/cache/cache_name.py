"""What a model calls the cache that it is given: `cache` since transformers 5.24, before that
`past_key_values`, which 5.24 still takes with a warning and passes on to its layers as `cache`."""

from inspect import signature

from torch import nn


def cache_name(model: nn.Module) -> str:
    """The argument of the model's forward that holds the cache."""
    given = signature(type(model).forward).parameters
    return "cache" if "cache" in given else "past_key_values"
