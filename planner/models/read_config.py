"""From a Hugging Face config.json to a ModelSpec: what the model is, without loading it.

`model_type` picks a family (planner/families), which reads the fields, describes every layer and
lists every weight tensor as transformers names it. An unknown model type is read as what it
resembles, and says so.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import BadConfig
from ..formats.dtypes import MODEL_DTYPES
from .config_fields import Fields
from .families import reader_of
from .families.config_defaults import fields_of
from .families.decoder import Decoder
from .families.unknown.encoders import refuse_encoders
from .families.unknown.similar_types import class_stem, type_of_class
from .families.unknown.unread import foreign_keys
from .field_kinds import check_kinds
from .quantization.section import find_section
from .read_keys import ReadKeys
from .spec import ModelSpec, Part, Reading, Role, TensorGroup
from .tensor_list import Tensors

MAX_PARAMETERS = 10**15


def read_model(config: Mapping[str, Any], name: str) -> ModelSpec:
    """Describe a model. Raises BadConfig where its config.json does not say enough."""
    if not isinstance(config, Mapping):
        raise BadConfig("config.json is not an object", "it must be a JSON object, as on the hub")
    check_kinds(config)
    notes: list[str] = []
    model_type = _model_type(config, notes)
    refuse_encoders(config, model_type)
    decoder, tensors, f = _read(config, model_type, notes)
    quantization = None
    if find_section(config) is not None:
        from .quantization.quantization_config import quantization_notes, read_quantization

        quantization = read_quantization(config)
        if quantization is not None:
            for note in quantization_notes(config, quantization, tensors.groups()):
                if note not in notes:
                    notes.append(note)
    spec = ModelSpec(
        name=name,
        model_type=model_type,
        hidden=decoder.hidden,
        vocab=decoder.vocab,
        max_context=decoder.max_context,
        layers=decoder.layers,
        tensors=tensors.groups(),
        dtype=_dtype(f),
        tied_embeddings=decoder.tied_embeddings,
        norm=decoder.norm,
        logit_softcap=decoder.logit_softcap,
        quantization=quantization,
        warnings=tuple(notes),
        bounds=decoder.bounds,
        text_type=decoder.text_type,
        readings=decoder.readings or _readings_of(decoder, tensors),
        understood=not decoder.readings,
    )
    if spec.parameters > MAX_PARAMETERS:
        raise BadConfig(
            f"config.json describes {spec.parameters:.1e} parameters, which no machine holds",
            "compare with the model's published config.json",
        )
    return spec


def _model_type(config: Mapping[str, Any], notes: list[str]) -> str:
    """What the file calls itself, else what the class that it names is of."""
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type:
        return model_type[:100]
    named = type_of_class(config) or class_stem(config)[:100]
    if not named and "_diffusers_version" in config:
        raise BadConfig("this is a config of diffusers", "kvpareto plans language models only")
    if not named:
        raise BadConfig(
            "config.json does not say its model_type", "use the model's published config.json"
        )
    notes.append(f"config.json does not say its model_type: {named}, by its class")
    return named


def _read(
    config: Mapping[str, Any], model_type: str, notes: list[str]
) -> tuple[Decoder, Tensors, Fields]:
    """The decoder as its family reads it; as unknown where there is none, or where the file is
    another's: a class of another name, and experts or loops that this family does not have."""
    reader = reader_of(model_type)
    if reader is not None:
        raw, tensors, said = ReadKeys(config), Tensors(), list(notes)
        f = fields_of(raw, model_type, notes=said)
        stem, plain = class_stem(config), "".join(c for c in model_type.lower() if c.isalnum())
        others = bool(stem) and stem not in plain and plain not in stem
        others = others and type_of_class(config) != model_type
        try:
            decoder = reader(f, tensors)
        except BadConfig:
            if not others or not foreign_keys(raw):
                raise
        else:
            foreign = foreign_keys(raw)
            if not foreign or not others:
                names = ", ".join(key.name for key in foreign[:4])
                if names:
                    f.note(f"{names}: not part of {model_type}, and not counted")
                notes[:] = said
                f.notes = notes  # what is noted from here on is kept too
                return decoder, tensors, f
        notes.append(f"model_type {model_type!r} is not that of the class the file names, {stem}")
    from .families.unknown.fallback import read as read_unknown  # a known family needs it not

    f = Fields(ReadKeys(config), kind=model_type, notes=notes)
    tensors = Tensors()
    return read_unknown(f, tensors), tensors, f


def _readings_of(decoder: Decoder, tensors: Tensors) -> tuple[Reading, ...]:
    """The ends of a known family whose towers are not described, from its bounds."""
    groups = tensors.groups()
    known = sum(group.parameters for group in groups)
    more = max((b.high for b in decoder.bounds if b.quantity == "parameters"), default=0) - known
    if more <= 0:
        return ()
    rest = TensorGroup("not described", (more,), 1, Role.OTHER, Part.VISION)
    return (Reading(decoder.layers, (*groups, rest)),)


def _dtype(f: Fields) -> str:
    """The checkpoint's dtype, wherever the config says it."""
    nested, odd = f.raw.get("text_config"), ""
    for source in (f.raw, nested if isinstance(nested, Mapping) else {}):
        for key in ("dtype", "torch_dtype"):
            value = source.get(key)
            if isinstance(value, str) and value.removeprefix("torch.") in MODEL_DTYPES:
                dtype = value.removeprefix("torch.")
                return _noted(f, odd, dtype)
            if value not in (None, "auto"):
                odd = odd or str(value)[:40]
    if not odd:
        f.note("the config does not say the weights' dtype: taken as bfloat16")
    return _noted(f, odd, "bfloat16")


def _noted(f: Fields, odd: str, dtype: str) -> str:
    """`dtype`, said where the config names another that is none."""
    if odd:
        f.note(f"dtype {odd!r} is not one weights are computed in: taken as {dtype}")
    return dtype
