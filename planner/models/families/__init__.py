"""Which module reads which model type; a family is imported only when it is asked for."""

from collections.abc import Callable
from functools import partial
from importlib import import_module

from ..config_fields import Fields
from ..tensor_list import Tensors
from .decoder import Decoder, text_decoder
from .registry import READER_MODULES, style_of

Reader = Callable[[Fields, Tensors], Decoder]


def reader_of(model_type: str) -> Reader | None:
    """The function that reads a model type's config, or None for an unknown one."""
    style = style_of(model_type)
    if style is not None:
        return partial(text_decoder, style=style)
    module = READER_MODULES.get(model_type)
    if module is None:
        return None
    reader: Reader = import_module(f".{module}", __package__).READERS[model_type]
    return reader
