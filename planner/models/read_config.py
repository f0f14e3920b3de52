"""From a Hugging Face config.json to a ModelSpec: what the model is, without loading it.

`model_type` picks a family (planner/families), which reads the fields, describes every layer and
lists every weight tensor as transformers names it. An unknown model type is read as what it
resembles, and says so.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import BadConfig
from .config_fields import Fields
from .families import reader_of
from .families.config_defaults import fields_of
from .families.fallback import read as read_unknown
from .families.fallback import refuse_encoders
from .quantization.quantization_config import quantization_notes, read_quantization
from .spec import ModelSpec
from .tensor_list import Tensors

DTYPES = ("bfloat16", "float16", "float32")
MAX_PARAMETERS = 10**15


def read_model(config: Mapping[str, Any], name: str) -> ModelSpec:
    """Describe a model. Raises BadConfig where its config.json does not say enough."""
    if not isinstance(config, Mapping):
        raise BadConfig("config.json is not an object", "it must be a JSON object, as on the hub")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise BadConfig(
            "config.json does not say its model_type", "use the model's published config.json"
        )
    model_type = model_type[:100]
    refuse_encoders(config, model_type)
    notes: list[str] = []
    f = fields_of(config, model_type, notes=notes)
    tensors = Tensors()
    reader = reader_of(model_type)
    found = reader(f, tensors) if reader else read_unknown(f, tensors)
    quantization = read_quantization(config)
    if quantization is not None:
        for note in quantization_notes(config, quantization, tensors.groups()):
            f.note(note)
    spec = ModelSpec(
        name=name,
        model_type=model_type,
        hidden=found.hidden,
        vocab=found.vocab,
        max_context=found.max_context,
        layers=found.layers,
        tensors=tensors.groups(),
        dtype=_dtype(f),
        tied_embeddings=found.tied_embeddings,
        norm=found.norm,
        logit_softcap=found.logit_softcap,
        quantization=quantization,
        warnings=tuple(notes),
        bounds=found.bounds,
        text_type=found.text_type,
    )
    if spec.parameters > MAX_PARAMETERS:
        raise BadConfig(
            f"config.json describes {spec.parameters:.1e} parameters, which no machine holds",
            "compare with the model's published config.json",
        )
    return spec


def _dtype(f: Fields) -> str:
    """The checkpoint's dtype, wherever the config says it."""
    nested = f.raw.get("text_config")
    for source in (f.raw, nested if isinstance(nested, Mapping) else {}):
        for key in ("dtype", "torch_dtype"):
            value = source.get(key)
            if isinstance(value, str) and value.removeprefix("torch.") in DTYPES:
                return value.removeprefix("torch.")
            if value not in (None, "auto"):
                f.note(f"dtype {str(value)[:40]!r} is not one weights are computed in")
    f.note("the config does not say the weights' dtype: taken as bfloat16")
    return "bfloat16"
