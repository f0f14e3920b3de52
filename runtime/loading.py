"""From a model and a configuration to a session that runs it.

    with load("meta-llama/Llama-3.1-8B", "w16a16-k4v4-g64+pc1024", context=32768) as session:
        print(session.generate("Once upon a time").text[0])

Weights: w16 as the checkpoint stores them; w4 from an AWQ checkpoint as stored, else rounded to
nearest while loading; w8 rounded to nearest. `random_weights` builds the model of a config with
random weights in its final format, to measure memory and speed without a download.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ..planner.engines.kvpareto import KVPARETO
from ..planner.errors import BadInput, MissingDependency, NothingFits
from ..planner.formats.configuration import Configuration
from ..planner.load_model import load_config, shipped_folder
from ..planner.memory.estimate import estimate
from ..planner.models.quantization.quantization_config import find_section
from ..planner.models.read_config import read_model
from ..planner.models.spec import ModelSpec
from ..planner.run_dtype import in_dtype, sixteen_bits
from ..planner.workload import Workload
from .generation.prefill import fitting_chunk
from .session import Session

logger = logging.getLogger(__name__)

DEFAULT_CONTEXT = 4096
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def load(
    model: PreTrainedModel | str | Path,
    config: Configuration | str,
    *,
    context: int = DEFAULT_CONTEXT,
    output: int = 512,
    batch: int = 1,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    tokenizer: Tokenizer | None = None,
    random_weights: bool = False,
    graphs: bool = True,
    fused: bool | None = None,
    memory_target: int | None = None,
    offline: bool = False,
) -> Session:
    """Load `model` to run under `config` with room for `context` + `output` tokens.

    `model` is a folder, a hub id, or a transformers model (which is changed in place where the
    configuration quantizes weights); with `random_weights` a folder, config.json or hub id of
    which only the config is read. `device` defaults to the first GPU, else the CPU; `dtype` to
    the checkpoint's on a CPU; on a GPU, whose kernels take 16 bits, to float16 for float16 ones,
    else bfloat16, or float16 where the GPU has no bfloat16.
    `memory_target` is the total in bytes that dynamic chunks stay within; by default all that
    the GPU has. `graphs` and `fused` can be switched off to compare.

    Raises BadInput for what cannot be run, MissingDependency where CUDA is asked for and not
    there, NothingFits when weights or cache do not fit in memory.
    """
    chosen = Configuration.parse(config) if isinstance(config, str) else config
    work = Workload(context=context, output=output, batch=batch)
    if isinstance(model, PreTrainedModel):
        where = model.device
        spec = read_model(model.config.to_dict(), type(model).__name__)
        spec = replace(spec, dtype=str(model.dtype).removeprefix("torch."))
        _pack_weights(model, chosen.weight_bits)
        loaded = model
    else:
        where = _device(device)
        loaded, spec, tokenizer = _from_source(
            str(model), chosen, where, dtype, tokenizer, random_weights, offline
        )
    return Session(
        loaded,
        spec,
        chosen,
        tokens=work.tokens,
        batch=batch,
        tokenizer=tokenizer,
        graphs=graphs,
        fused=fused,
        owned=not isinstance(model, PreTrainedModel),
        dynamic=dynamic_chunks(spec, chosen, work, memory_target, where),
    )


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise MissingDependency(
            "no CUDA GPU is available to torch", "use device='cpu', or install torch with CUDA"
        )
    return where


def _from_source(
    source: str,
    config: Configuration,
    device: torch.device,
    dtype: torch.dtype | None,
    tokenizer: Tokenizer | None,
    random_weights: bool,
    offline: bool,
) -> tuple[PreTrainedModel, ModelSpec, Tokenizer | None]:
    """The model with its weights as configured, its description, and its tokenizer if any."""
    found = load_config(source, offline=offline)
    spec = read_model(found.config, found.name)
    if dtype is None:
        dtype = getattr(torch, dtype_on(device, spec.dtype))
    spec = in_dtype(spec, str(dtype).removeprefix("torch."))
    model: Any
    try:
        if random_weights:
            from .weights.random import random_model  # needs triton

            model = random_model(found.config, config.weight_bits, device, dtype=dtype)
        else:
            folder = _folder(source, offline)
            tokenizer = tokenizer or _tokenizer(folder)
            model = _weights(folder, config, device, dtype)
    except torch.OutOfMemoryError as error:
        raise NothingFits(
            f"the weights of {found.name} at {config.weight_bits} bits do not fit on {device}",
            "fewer weight bits, or a smaller model",
        ) from error
    return model, spec, tokenizer


def dtype_on(device: torch.device, stored: str) -> str:
    """The dtype that a checkpoint is loaded in: 16 bits on a GPU, its own on a CPU."""
    if device.type != "cuda":
        return stored
    return sixteen_bits(stored, torch.cuda.is_bf16_supported(including_emulation=False))


def _folder(source: str, offline: bool) -> Path:
    """The folder of a checkpoint, downloaded where it is a hub id that is not cached."""
    path = shipped_folder(source) or Path(source).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=_FILES, local_files_only=offline))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BadInput(
            f"the weights of {source} are neither cached nor could they be downloaded",
            "give a folder that holds them, check the name, or set HF_TOKEN for a gated model",
        ) from error


def _tokenizer(folder: Path) -> Tokenizer | None:
    named = ("tokenizer.json", "tokenizer.model", "vocab.json")
    if not any((folder / name).is_file() for name in named):
        return None
    return AutoTokenizer.from_pretrained(folder)


def _weights(folder: Path, config: Configuration, device: torch.device, dtype: torch.dtype) -> Any:
    stored = find_section(json.loads((folder / "config.json").read_text())) or {}
    method = str(stored.get("quant_method", "")).lower()
    if method == "awq":
        if config.weight_bits != 4:
            raise BadInput(
                f"{folder.name} stores 4-bit weights, the configuration asks for "
                f"w{config.weight_bits}",
                "use w4a16, or the 16-bit checkpoint",
            )
        from .weights.load_awq import load_awq  # needs triton

        return load_awq(folder, device, dtype=dtype)
    if stored:
        raise BadInput(
            f"{folder.name} is quantized as {method or 'unknown'!r}, which this runtime does not "
            "read",
            "use the 16-bit checkpoint or an AWQ one",
        )
    # Rounded on the way: the 16-bit weights are loaded where there is room, then packed.
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map={"": device})
    if config.weight_bits < 16:
        logger.warning(
            "%s is a 16-bit checkpoint: its weights are rounded to the nearest of %d bits",
            folder.name,
            config.weight_bits,
        )
        _pack_weights(model, config.weight_bits)
    return model


def _pack_weights(model: Any, bits: int) -> None:
    if bits < 16:
        from .weights.quantize_modules import apply  # needs triton

        apply(model, bits)


def dynamic_chunks(
    spec: ModelSpec,
    config: Configuration,
    work: Workload,
    target: int | None,
    device: torch.device,
) -> Callable[[int], int] | None:
    """The largest chunk that keeps total memory within the target, by the planner's estimate.

    The cache is allocated whole at the start, so what changes as it fills is what a chunk's
    attention takes beside it.
    """
    if not config.dynamic_chunk:
        return None
    if target is None:
        if device.type != "cuda":
            raise BadInput("dynamic chunks follow a memory target", "give memory_target in bytes")
        target = torch.cuda.get_device_properties(device).total_memory
    whole = estimate(spec, config.with_chunk(64), work, KVPARETO, None)

    @cache
    def total(chunk: int, cached: int) -> int:
        step = Workload(context=cached + chunk, output=0, batch=work.batch)
        here = estimate(spec, config.with_chunk(chunk), step, KVPARETO, None)
        return whole.total - whole.activation + here.activation

    return fitting_chunk(total, target)
