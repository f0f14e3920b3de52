"""The dtype that a model is run in: 16 bits, whatever dtype its checkpoint is stored in.

Every engine loads a float32 checkpoint in 16 bits: in bfloat16, or in float16 where the GPU has no
bfloat16. `--dtype` says otherwise. Tensors that an architecture keeps in a dtype of their own
(TensorGroup.dtype, a state's dtype) keep it. `ModelSpec.dtype` is the dtype that is run;
`stored_dtype` that of the checkpoint, where it is another.
"""

from dataclasses import replace

from ..errors import BadInput
from ..formats.dtypes import DTYPE_BYTES, MODEL_DTYPES
from ..hardware.gpus import Hardware
from ..models.spec import ModelSpec
from .weights import available_weight_bits, weight_bytes

_SHORT = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32"}


def parse_dtype(text: str | None) -> str | None:
    """`bfloat16`, `float16`, `float32` or `bf16`, `fp16`, `fp32`; None and `auto`: the rule's.

    Raises BadInput for anything else.
    """
    if text is None or text.strip().lower() == "auto":
        return None
    name = text.strip().lower().removeprefix("torch.")
    name = _SHORT.get(name, name)
    if name not in MODEL_DTYPES:
        raise BadInput(
            f"no dtype that models are run in: {text!r}", f"choose {', '.join(MODEL_DTYPES)}"
        )
    return name


def sixteen_bits(stored: str, bf16: bool = True) -> str:
    """The 16-bit dtype that a checkpoint of dtype `stored` is run in; `bf16`: whether the device
    computes in bfloat16."""
    if stored == "float16":
        return stored
    return "bfloat16" if bf16 else "float16"


def as_run(
    spec: ModelSpec, asked: str | None = None, hardware: Hardware | None = None
) -> ModelSpec:
    """`spec` in the dtype it is run in, `asked` or by the rule, with a note where that is not the
    checkpoint's."""
    lacking = "" if hardware is None or hardware.bf16 else hardware.name
    dtype = asked or sixteen_bits(spec.dtype, bf16=not lacking)
    planned = f"the checkpoint is {spec.dtype} and is planned in {dtype}, "
    if lacking and dtype == "bfloat16":
        note = f"{lacking} does not compute in bfloat16: --dtype float16 is what runs there"
    elif dtype == spec.dtype != "float32":
        return spec
    elif asked is not None:
        note = planned + "as asked"
        if dtype == "float32" and hardware is not None:
            note += "; times are those of 16-bit arithmetic, so float32 takes longer"
    elif lacking:
        note = planned + f"because {lacking} has no bfloat16: values beyond 65,504 overflow there"
    else:
        note = planned + "as engines run it: --dtype float32 plans it as it is stored"
    return in_dtype(replace(spec, warnings=(*spec.warnings, note)), dtype)


def in_dtype(spec: ModelSpec, dtype: str) -> ModelSpec:
    """`spec` loaded in `dtype`: what its files hold beyond config.json is cast too."""
    if dtype == spec.dtype:
        return spec
    cast = replace(spec, dtype=dtype, stored_dtype=spec.stored_dtype or spec.dtype)
    if spec.stored_weight_bytes is None:
        return cast
    bits = available_weight_bits(spec)[0]
    before = weight_bytes(replace(spec, stored_weight_bytes=None), bits).total
    after = weight_bytes(replace(cast, stored_weight_bytes=None), bits).total
    beyond = spec.stored_weight_bytes - before
    if spec.quantization is None and after < before and spec.stored_weight_bytes < 0.6 * before:
        beyond = spec.stored_weight_bytes - after  # the index is of files in 16 bits already
    elif spec.quantization is None:
        beyond = beyond * DTYPE_BYTES[dtype] // DTYPE_BYTES[spec.dtype]
    return replace(cast, stored_weight_bytes=after + beyond)
