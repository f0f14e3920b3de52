"""Bytes of one element of each dtype, by the name that torch and safetensors' readers give it."""

DTYPE_BYTES = {
    "float64": 8,
    "int64": 8,
    "float32": 4,
    "int32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}

MODEL_DTYPES = ("bfloat16", "float16", "float32")
"""Those that a checkpoint may be stored in, and a model be run in, as a whole."""
