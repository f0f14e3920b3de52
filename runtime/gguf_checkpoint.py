"""A GGUF file as a model in memory: dequantized by transformers, its tokenizer from the file.

transformers reads the architectures that it knows by their GGUF names (llama, qwen2, qwen3, gemma3
and some more), on one core: 0.1 B parameters take 40 s. The weights are then 16 bits like any
other's; w8 and w4 are these, rounded anew.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer

from ..planner.errors import BadInput
from ..planner.libraries import importing
from ..planner.models.spec import ModelSpec
from .checkpoint import without_bars
from .failures import reading
from .generation.tokenizer import check_words

_OTHER = "give the folder or the hub id of the original model"


def require_gguf() -> None:
    """Raises MissingDependency without the package that transformers reads GGUF by, or with one
    that is broken."""
    with importing("running a GGUF file", "gguf"):
        import gguf  # noqa: F401 - transformers reads the file by it


def load_gguf_config(path: Path) -> Any:
    """transformers' config of the file. Raises BadInput for an architecture it does not read."""
    with reading(f"{path.name} by transformers", _OTHER):
        return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)


def check_whole(path: Path, spec: ModelSpec) -> None:
    """Raise BadInput for a model that is cut over several files."""
    if spec.gguf is not None and spec.gguf.file_bytes != path.stat().st_size:
        raise BadInput(
            f"{path.name} is one of several parts, which are planned and not run",
            "merge them with llama.cpp's llama-gguf-split, or " + _OTHER,
        )


def load_gguf_tokenizer(path: Path, rows: int) -> Tokenizer:
    """The tokenizer in the file. Raises BadInput for one that cannot be read, or that numbers words
    beyond the `rows` of the embedding."""
    with reading(f"the tokenizer of {path.name}", _OTHER):
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    check_words(tokenizer, rows, path.name)
    return tokenizer


def load_gguf(path: Path, spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Any:
    """The model of one file. Raises BadInput where what was loaded is not that of the header."""
    with reading(f"the weights of {path.name}", _OTHER), without_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=dtype,
            device_map={"": device},
            **_dequantized(),
        )
    held = sum(parameter.numel() for parameter in model.parameters())
    if held != spec.parameters:
        raise BadInput(
            f"transformers made {held:,} parameters of {path.name}, whose header gives "
            f"{spec.parameters:,}",
            _OTHER,
        )
    return model


def _dequantized() -> dict[str, Any]:
    """What asks transformers for plain weights: newer versions leave them in their blocks."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}
