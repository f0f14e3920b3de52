"""From a source to a model in memory, with its weights as asked.

w16 as the checkpoint stores them; w4 from an AWQ checkpoint as stored, else rounded to nearest
while loading; w8 rounded to nearest. Other quantized checkpoints are dequantized while they are
read, and are then 16-bit ones. Random weights are built in their final format from a config.

What config, tokenizer and file headers tell comes first (`before_weights`), so that whoever asks
for something that cannot be is told in a second. Weights take minutes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, GenerationConfig
from transformers import PreTrainedTokenizerBase as Tokenizer

from ..planner.engines.kvpareto.checkpoints import AS_STORED, as_dequantized, reads
from ..planner.errors import BadInput, NothingFits
from ..planner.load_model import DEMO, gguf_path, load_config, load_model, shipped_folder
from ..planner.memory.run_dtype import in_dtype, sixteen_bits
from ..planner.memory.weights import ROUNDED_BITS, check_weight_bits
from ..planner.models.quantization.section import find_section
from ..planner.models.read_config import read_model
from ..planner.models.spec import ModelSpec
from .checkpoint import AGAIN, GENERATION, check_config, check_files
from .failures import is_out_of_memory, reading
from .generation.tokenizer import load_tokenizer
from .model_class import causal_class, check_class
from .weights.load_plain import load_plain, pack_weights

_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
_WEIGHTS = [*_FILES, "*.safetensors"]


class Loaded(NamedTuple):
    """A model with its weights as asked, its description, and its tokenizer if it has one."""

    model: Any
    spec: ModelSpec
    tokenizer: Tokenizer | None


@dataclass(frozen=True)
class WeightsAhead:
    """A source whose config, class and tokenizer were read, and found in order; no weight yet.

    `spec` is in the dtype that the weights will have."""

    spec: ModelSpec
    tokenizer: Tokenizer | None
    weight_bits: int
    device: torch.device
    _read: Callable[[], Any]

    def load(self) -> Loaded:
        """Read the weights. Raises BadInput for files that are not whole, NothingFits where memory
        runs out."""
        try:
            return Loaded(self._read(), self.spec, self.tokenizer)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise NothingFits(
                f"the weights of {self.spec.name} at {self.weight_bits} bits do not fit on "
                f"{self.device}",
                "fewer weight bits, or a smaller model",
            ) from error


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
    """The one way from a source to a model in memory, for whoever runs it; else as `load`."""
    return before_weights(
        source,
        weight_bits,
        device,
        dtype=dtype,
        tokenizer=tokenizer,
        random_weights=random_weights,
        offline=offline,
        trust_remote_code=trust_remote_code,
        packed_cache=packed_cache,
    ).load()


def before_weights(
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
) -> WeightsAhead:
    """Read all of a source but its weights. Of a hub id that is not cached the small files are
    downloaded.

    `packed_cache` says whether sessions will run on it: a model that only transformers' own
    attention runs is then refused. Raises BadInput.
    """
    gguf = gguf_path(source)
    if gguf is not None:
        if random_weights:
            raise BadInput(
                f"{gguf.name} has weights of its own", "give a config.json for random weights"
            )
        return _before_gguf(source, gguf, weight_bits, device, dtype, tokenizer, packed_cache)
    named = load_config(source, offline=offline)
    stored_spec = read_model(named.config, named.name)
    spec = as_dequantized(stored_spec)
    check_weight_bits(spec, weight_bits)
    if dtype is None:
        rounded = device.type == "cuda" and weight_bits < 16 and spec.quantization is None
        dtype = getattr(torch, dtype_on(device, "bfloat16" if rounded else spec.dtype))
    spec = in_dtype(spec, str(dtype).removeprefix("torch."))
    check = check_class if packed_cache else causal_class
    if random_weights:
        from .weights.build import read_hf_config

        check(read_hf_config(named.config), named.name)
        if weight_bits not in ROUNDED_BITS:
            raise BadInput(
                f"{named.name} is stored in {weight_bits} bits, which this runtime does not read",
                "random weights are w16, w8 or w4, of the model it was quantized from",
            )
        read: Callable[[], Any] = partial(_random, named.config, weight_bits, device, dtype)
        return WeightsAhead(spec, tokenizer, weight_bits, device, read)
    folder = _folder(source, offline, trust_remote_code, _FILES)
    check_config(folder)
    with reading(f"config.json of {folder.name}", "compare with the published one"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    check(config, named.name)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    tokenizer = tokenizer or load_tokenizer(folder, rows, trust_remote_code)
    _check_quantization(stored_spec, folder, weight_bits)
    if _is_here(source):
        check_files(folder)
    dequantized = spec.quantization is not stored_spec.quantization
    section = find_section(named.config) if dequantized else None

    def stored() -> Any:
        whole = _folder(source, offline, trust_remote_code, _WEIGHTS)
        check_files(whole)
        return _stored(whole, config, spec, weight_bits, device, dtype, section, trust_remote_code)

    return WeightsAhead(spec, tokenizer, weight_bits, device, stored)


def _stored(
    folder: Path,
    config: Any,
    spec: ModelSpec,
    weight_bits: int,
    device: torch.device,
    dtype: torch.dtype,
    section: Any,
    trust_remote_code: bool,
) -> Any:
    """The model of a folder; AWQ's weights as they are, all others as load_plain reads them."""
    model: Any
    if spec.quantization is not None:
        from .weights.load_awq import load_awq

        with reading(f"the weights of {folder.name}", AGAIN):
            model = load_awq(folder, device, dtype=dtype)
    else:
        model = load_plain(
            folder, config, spec, weight_bits, device, dtype, section, trust_remote_code
        )
    if (folder / GENERATION).exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def _random(
    config: dict[str, object], weight_bits: int, device: torch.device, dtype: torch.dtype
) -> Any:
    from .weights.random import random_model

    return random_model(config, weight_bits, device, dtype=dtype)


def _before_gguf(
    source: str,
    path: Path,
    weight_bits: int,
    device: torch.device,
    dtype: torch.dtype | None,
    tokenizer: Tokenizer | None,
    packed_cache: bool,
) -> WeightsAhead:
    """A GGUF file, whose weights are dequantized, and rounded to `weight_bits` where these are
    fewer."""
    from .gguf_checkpoint import (
        check_whole,
        load_gguf,
        load_gguf_config,
        load_gguf_tokenizer,
        require_gguf,
    )

    require_gguf()
    spec = load_model(source)
    check_weight_bits(spec, weight_bits)
    dtype = dtype or getattr(torch, dtype_on(device, spec.dtype))
    spec = in_dtype(spec, str(dtype).removeprefix("torch."))
    check = check_class if packed_cache else causal_class
    check(load_gguf_config(path), spec.name)
    check_whole(path, spec)
    tokenizer = tokenizer or load_gguf_tokenizer(path, spec.vocab)
    on_host = device.type == "cuda" and weight_bits < 16

    def read() -> Any:
        model = load_gguf(path, spec, torch.device("cpu") if on_host else device, dtype)
        pack_weights(model, weight_bits, device if on_host else None)
        if on_host:
            from .weights.fused_projections import move

            move(model, device)
        return model

    return WeightsAhead(spec, tokenizer, weight_bits, device, read)


def dtype_on(device: torch.device, stored: str) -> str:
    """The dtype that a checkpoint is loaded in: 16 bits on a GPU, its own on a CPU."""
    if device.type != "cuda":
        return stored
    return sixteen_bits(stored, torch.cuda.is_bf16_supported(including_emulation=False))


def _is_here(source: str) -> bool:
    """Whether a source is a folder or a file of this machine, not a hub id."""
    known = source.strip() == DEMO or shipped_folder(source) is not None
    return known or Path(source).expanduser().exists()


def _folder(source: str, offline: bool, trust_remote_code: bool, files: list[str]) -> Path:
    """The folder of a checkpoint; of a hub id that is not cached these `files` are downloaded."""
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

    wanted = [*files, "*.py"] if trust_remote_code else files
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
