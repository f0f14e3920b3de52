"""What to type: `vllm serve` with every flag, and the checkpoint to get."""

from ...local_model import loadable
from ...models.spec import ModelSpec
from ...serving import Flags
from ..kvpareto.model_types import is_own_code
from .settings import ONLINE, ServeSettings

SUFFIXES = {"awq": "AWQ", "gptq4": "GPTQ-Int4", "gptq8": "GPTQ-Int8", "nvfp4": "NVFP4"} | {
    "int8": "W8A8",
    "mxfp4": "MXFP4",
}
"""How people call checkpoints in these formats: behind the model's name."""
ABOUT = {
    "awq": "AWQ, 4 bits in groups of 128",
    "gptq4": "GPTQ, 4 bits in groups of 128",
    "gptq8": "GPTQ, 8 bits in groups of 128",
    "nvfp4": "NVFP4",
    "int8": "8-bit integers of weights and activations (compressed-tensors)",
    "mxfp4": "MXFP4 experts",
}


def model_argument(spec: ModelSpec, name: str) -> str:
    """What is served: the model as named, or a checkpoint of it in the format."""
    if not name or name in ONLINE:
        return loadable(spec)
    return f"./{spec.name.rsplit('/', 1)[-1]}-{SUFFIXES[name]}"


def checkpoint_words(spec: ModelSpec, name: str) -> str:
    """The checkpoint to get or to make, in words; empty where it is the model as named."""
    if not name or name in ONLINE:
        return ""
    return f"a checkpoint of {spec.name} in {ABOUT[name]} (made with llm-compressor, or published)"


def own_code_notes(spec: ModelSpec) -> list[str]:
    """What a server may ask for that the command does not say: leave to run a repository's code."""
    if not is_own_code(spec.model_type):
        return []
    return [
        f"{spec.model_type} is code of the model's repository: where the server has no classes of "
        "its own for it, it asks for --trust-remote-code, which runs that code"
    ]


def keeps_16_bits(spec: ModelSpec) -> bool:
    """Whether the checkpoint names a cache of fewer bits, which `auto` would take: a cache of 16
    bits is then asked for by its dtype."""
    return spec.quantization is not None and bool(spec.quantization.kv_cache)


def flags_of(model: str, settings: ServeSettings, by_dtype: bool = False) -> Flags:
    """Every flag by its name without dashes, `-` as `_`, with its value as a field. `by_dtype`: a
    cache of 16 bits goes by its dtype."""
    fields: list[tuple[str, str | int | float | bool]] = [("model", model)]
    for flag, text in settings.flags().items():
        name = flag.removeprefix("--").replace("-", "_")
        if by_dtype and (name, text) == ("kv_cache_dtype", "auto"):
            text = "bfloat16"
        fields.append((name, _value(text)))
    return tuple(fields)


def _value(text: str) -> str | int | float | bool:
    if not text:
        return True
    if text.isdigit():
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text
