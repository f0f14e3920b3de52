"""From a source to a model in memory, with its weights as asked.

w16 as the checkpoint stores them; w4 from an AWQ checkpoint as stored, else rounded to nearest
while loading; w8 rounded to nearest. Other quantized checkpoints are dequantized while they are
read, and are then 16-bit ones. Random weights are built in their final format from a config.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers import PreTrainedTokenizerBase as Tokenizer

from ..planner.engines.kvpareto.checkpoints import AS_STORED, as_dequantized, reads
from ..planner.errors import BadInput, NothingFits
from ..planner.load_model import DEMO, gguf_path, load_config, load_model, shipped_folder
from ..planner.memory.run_dtype import in_dtype, sixteen_bits
from ..planner.models.quantization.section import find_section
from ..planner.models.read_config import read_model
from ..planner.models.spec import ModelSpec
from .checkpoint import (
    AGAIN,
    GENERATION,
    check_config,
    check_files,
    check_loaded,
    draft_layers,
    without_bars,
)
from .failures import is_out_of_memory, reading
from .generation.tokenizer import load_tokenizer
from .model_class import causal_class, check_class

logger = logging.getLogger(__name__)
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


class Loaded(NamedTuple):
    """A model with its weights as asked, its description, and its tokenizer if it has one."""

    model: Any
    spec: ModelSpec
    tokenizer: Tokenizer | None


def load_weights(
    source: str,
    weight_bits: int,
    device: torch.device,
    *,
    dtype: torch.dtype | None = None,
    tokenizer: Tokenizer | None = None,
    random_weights: bool = False,
    offline: bool = False,
    trust_remote_code: bool = False,
    packed_cache: bool = True,
) -> Loaded:
    """The one way from a source to a model in memory, for whoever runs it; else as `load`.

    `packed_cache` says whether sessions will run on it: a model that only transformers' own
    attention runs is then refused before its weights are read.
    """
    gguf = gguf_path(source)
    if gguf is not None:
        return _of_gguf(source, gguf, weight_bits, device, dtype, random_weights, packed_cache)
    named = load_config(source, offline=offline)
    stored_spec = read_model(named.config, named.name)
    spec = as_dequantized(stored_spec)
    if dtype is None:
        rounded = device.type == "cuda" and weight_bits < 16 and spec.quantization is None
        dtype = getattr(torch, dtype_on(device, "bfloat16" if rounded else spec.dtype))
    spec = in_dtype(spec, str(dtype).removeprefix("torch."))
    check = check_class if packed_cache else causal_class
    model: Any
    try:
        if random_weights:
            from .weights.build import read_hf_config
            from .weights.random import random_model  # needs triton

            check(read_hf_config(named.config), named.name)
            model = random_model(named.config, weight_bits, device, dtype=dtype)
        else:
            folder = _folder(source, offline, trust_remote_code)
            check_config(folder)
            with reading(f"config.json of {folder.name}", "compare with the published one"):
                config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            check(config, named.name)
            rows = getattr(config.get_text_config(), "vocab_size", None)
            tokenizer = tokenizer or load_tokenizer(folder, rows, trust_remote_code)
            _check_quantization(stored_spec, folder, weight_bits)
            check_files(folder)
            if spec.quantization is not None:
                from .weights.load_awq import load_awq  # needs triton

                with reading(f"the weights of {folder.name}", AGAIN):
                    model = load_awq(folder, device, dtype=dtype)
            else:
                section = find_section(named.config) if spec is not stored_spec else None
                model = _plain(
                    folder, config, spec, weight_bits, device, dtype, section, trust_remote_code
                )
            if (folder / GENERATION).exists():
                model.generation_config = GenerationConfig.from_pretrained(folder)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise NothingFits(
            f"the weights of {named.name} at {weight_bits} bits do not fit on {device}",
            "fewer weight bits, or a smaller model",
        ) from error
    return Loaded(model, spec, tokenizer)


def _of_gguf(
    source: str,
    path: Path,
    weight_bits: int,
    device: torch.device,
    dtype: torch.dtype | None,
    random_weights: bool,
    packed_cache: bool,
) -> Loaded:
    """A GGUF file's weights, dequantized, and rounded to `weight_bits` where these are fewer."""
    from .gguf_checkpoint import load_gguf, load_gguf_config, require_gguf

    if random_weights:
        raise BadInput(
            f"{path.name} has weights of its own", "give a config.json for random weights"
        )
    require_gguf()
    spec = load_model(source)
    dtype = dtype or getattr(torch, dtype_on(device, spec.dtype))
    spec = in_dtype(spec, str(dtype).removeprefix("torch."))
    check = check_class if packed_cache else causal_class
    check(load_gguf_config(path), spec.name)
    on_host = device.type == "cuda" and weight_bits < 16
    try:
        model, tokenizer = load_gguf(path, spec, torch.device("cpu") if on_host else device, dtype)
        pack_weights(model, weight_bits)
        if on_host:
            from .weights.fused_projections import move

            move(model, device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise NothingFits(
            f"the weights of {spec.name} at {weight_bits} bits do not fit on {device}",
            "fewer weight bits, or a smaller model",
        ) from error
    return Loaded(model, spec, tokenizer)


def dtype_on(device: torch.device, stored: str) -> str:
    """The dtype that a checkpoint is loaded in: 16 bits on a GPU, its own on a CPU."""
    if device.type != "cuda":
        return stored
    return sixteen_bits(stored, torch.cuda.is_bf16_supported(including_emulation=False))


def _folder(source: str, offline: bool, trust_remote_code: bool) -> Path:
    """The folder of a checkpoint, downloaded where it is a hub id that is not cached."""
    if source.strip() == DEMO:
        from .demo_model import unpacked

        return unpacked()
    path = shipped_folder(source) or Path(source).expanduser()
    if path.is_file():
        path = path.parent
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [*_FILES, "*.py"] if trust_remote_code else _FILES
    try:
        return Path(snapshot_download(source, allow_patterns=wanted, local_files_only=offline))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BadInput(
            f"the weights of {source} are neither cached nor could they be downloaded",
            "give a folder that holds them, check the name, or set HF_TOKEN for a gated model",
        ) from error


def _check_quantization(spec: ModelSpec, folder: Path, weight_bits: int) -> None:
    """Raise BadInput for a quantized checkpoint that is not read, or not at these bits."""
    stored = spec.quantization
    if stored is None:
        return
    if not reads(stored):
        formats = ", ".join(name for _, name in stored.details)
        raise BadInput(
            f"{folder.name} is quantized as {stored.method!r} ({formats}), which this runtime does "
            "not read",
            "use the 16-bit checkpoint, an AWQ one, or one of 8 bits (fp8) or MXFP4",
        )
    if stored.method in AS_STORED and weight_bits != 4:
        raise BadInput(
            f"{folder.name} stores 4-bit weights, the configuration asks for w{weight_bits}",
            "use w4a16, or the 16-bit checkpoint",
        )


def _plain(
    folder: Path,
    config: Any,
    spec: ModelSpec,
    weight_bits: int,
    device: torch.device,
    dtype: torch.dtype,
    section: Mapping[str, Any] | None,
    trust_remote_code: bool,
) -> Any:
    """The model of a 16-bit checkpoint, rounded to `weight_bits` where these are fewer.

    `section` is the `quantization_config` of one that is dequantized on the way. What is to be
    rounded for a GPU is loaded and rounded in the host's memory, so that the 16-bit weights never
    lie on the device.
    """
    on_host = device.type == "cuda" and weight_bits < 16
    with reading(f"the weights of {folder.name}", AGAIN), _quiet(), without_bars():
        how: dict[str, Any] = {
            "config": config,
            "dtype": dtype,
            "device_map": {"": torch.device("cpu") if on_host else device},
            "ignore_mismatched_sizes": True,  # they are refused by name
            "output_loading_info": True,
        }
        loaded: Any
        if section is None:
            loaded = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=trust_remote_code, **how
            )
        else:
            loaded = _dequantized(folder, section, how)
    model, loading_info = loaded
    check_loaded(folder.name, loading_info, len(spec.layers), draft_layers(config.to_dict()))
    if weight_bits < 16:
        logger.warning(
            "%s is %s: its weights are rounded to the nearest of %d bits",
            folder.name,
            "a 16-bit checkpoint" if section is None else "dequantized",
            weight_bits,
        )
        pack_weights(model, weight_bits)
    if on_host:
        from .weights.fused_projections import move

        move(model, device)
    return model


def _dequantized(folder: Path, section: Mapping[str, Any], how: dict[str, Any]) -> Any:
    """What from_pretrained gives of a checkpoint that is dequantized, tensor by tensor."""
    from .weights.dequantize import dequantized_tensors

    config = how["config"]
    kind = causal_class(config, folder.name)
    if kind is None:
        raise BadInput(
            f"{folder.name} is quantized, and brings a class of its own",
            "only classes that transformers holds are dequantized",
        )
    for part in (config, config.get_text_config()):
        part.__dict__.pop("quantization_config", None)
    tensors = dequantized_tensors(folder, section, how["dtype"])
    return kind.from_pretrained(None, state_dict=tensors, **how)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' table of what a load lacks: it is told in one line, or no matter."""
    talker = logging.getLogger("transformers.modeling_utils")
    talker.addFilter(_is_error)
    try:
        yield
    finally:
        talker.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def pack_weights(model: Any, bits: int) -> None:
    """Round the weights of a 16-bit model in place; 16 bits change nothing."""
    if bits < 16:
        from .weights.quantize_modules import apply  # needs triton

        apply(model, bits)
