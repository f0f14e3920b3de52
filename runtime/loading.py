"""From a model and a configuration to a session that runs it.

    with load("meta-llama/Llama-3.1-8B", "w16a16-k4v4-g64+pc1024", context=32768) as session:
        print(session.generate("Once upon a time").text[0])

Weights: w16 as the checkpoint stores them; w4 from an AWQ checkpoint as stored, else rounded to
nearest while loading; w8 rounded to nearest. `random_weights` builds the model of a config with
random weights in its final format, to measure memory and speed without a download.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ..planner.engines.kvpareto import KVPARETO
from ..planner.errors import BadInput, MissingDependency, NothingFits
from ..planner.formats.configuration import Configuration
from ..planner.load_model import DEMO, gguf_path, load_config, load_model, shipped_folder
from ..planner.memory.estimate import estimate
from ..planner.memory.run_dtype import in_dtype, sixteen_bits
from ..planner.models.quantization.quantization_config import find_section
from ..planner.models.read_config import read_model
from ..planner.models.spec import ModelSpec
from ..planner.workload import Workload
from .checkpoint import AGAIN, check_config, check_files, check_loaded, draft_layers
from .failures import is_out_of_memory, reading
from .generation.prefill import fitting_chunk
from .generation.tokenizer import load_tokenizer
from .model_class import causal_class, check_class
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
    trust_remote_code: bool = False,
) -> Session:
    """Load `model` to run under `config` with room for `context` + `output` tokens.

    `model` is a folder, a hub id, or a transformers model (which is changed in place where the
    configuration quantizes weights); with `random_weights` a folder, config.json or hub id of
    which only the config is read. `device` defaults to the first GPU, else the CPU; `dtype` to
    the checkpoint's on a CPU; on a GPU, whose kernels take 16 bits, to float16 for float16 ones,
    else bfloat16, or float16 where the GPU has no bfloat16.
    `memory_target` is the total in bytes that dynamic chunks stay within; by default all that
    the GPU has. `graphs` and `fused` can be switched off to compare. Code that a repository
    brings is run only with `trust_remote_code`.

    Raises BadInput for what cannot be run and for checkpoints that are not whole,
    MissingDependency where CUDA is asked for and not there, NothingFits when weights or cache do
    not fit in memory.
    """
    chosen = Configuration.parse(config) if isinstance(config, str) else config
    KVPARETO.check_formats(chosen)
    work = Workload(context=context, output=output, batch=batch)
    if isinstance(model, PreTrainedModel):
        where = model.device
        spec = read_model(model.config.to_dict(), type(model).__name__)
        spec = replace(spec, dtype=str(model.dtype).removeprefix("torch."))
        _pack_weights(model, chosen.weight_bits)
        loaded = model
    else:
        where = _device(device)
        loaded, spec, tokenizer = load_weights(
            str(model),
            chosen.weight_bits,
            where,
            dtype=dtype,
            tokenizer=tokenizer,
            random_weights=random_weights,
            offline=offline,
            trust_remote_code=trust_remote_code,
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
    found = load_config(source, offline=offline)
    spec = read_model(found.config, found.name)
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

            check(read_hf_config(found.config), found.name)
            model = random_model(found.config, weight_bits, device, dtype=dtype)
        else:
            folder = _folder(source, offline, trust_remote_code)
            stored = check_config(folder)
            with reading(f"config.json of {folder.name}", "compare with the published one"):
                config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            check(config, found.name)
            rows = getattr(config.get_text_config(), "vocab_size", None)
            tokenizer = tokenizer or load_tokenizer(folder, rows, trust_remote_code)
            method = _packed_as(stored, folder, weight_bits)
            check_files(folder)
            if method == "awq":
                from .weights.load_awq import load_awq  # needs triton

                with reading(f"the weights of {folder.name}", AGAIN):
                    model = load_awq(folder, device, dtype=dtype)
            else:
                model = _plain(folder, config, spec, weight_bits, device, dtype, trust_remote_code)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise NothingFits(
            f"the weights of {found.name} at {weight_bits} bits do not fit on {device}",
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
        _pack_weights(model, weight_bits)
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


def _packed_as(stored: dict[str, Any], folder: Path, weight_bits: int) -> str:
    """How a checkpoint is quantized: "awq", or "" for not at all. Raises BadInput for the rest."""
    settings = find_section(stored) or {}
    method = str(settings.get("quant_method", ""))
    method = method.lower()
    if not settings:
        return ""
    if method != "awq":
        raise BadInput(
            f"{folder.name} is quantized as {method or 'unknown'!r}, which this runtime does not "
            "read",
            "use the 16-bit checkpoint or an AWQ one",
        )
    if weight_bits != 4:
        raise BadInput(
            f"{folder.name} stores 4-bit weights, the configuration asks for w{weight_bits}",
            "use w4a16, or the 16-bit checkpoint",
        )
    return method


def _plain(
    folder: Path,
    config: Any,
    spec: ModelSpec,
    weight_bits: int,
    device: torch.device,
    dtype: torch.dtype,
    trust_remote_code: bool,
) -> Any:
    """The model of a 16-bit checkpoint, rounded to `weight_bits` where these are fewer.

    What is to be rounded for a GPU is loaded and rounded in the host's memory, so that the 16-bit
    weights never lie on the device.
    """
    on_host = device.type == "cuda" and weight_bits < 16
    with reading(f"the weights of {folder.name}", AGAIN), _quiet():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            device_map={"": torch.device("cpu") if on_host else device},
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused by name
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    model, found = loaded
    check_loaded(folder.name, found, len(spec.layers), draft_layers(config.to_dict()))
    if weight_bits < 16:
        logger.warning(
            "%s is a 16-bit checkpoint: its weights are rounded to the nearest of %d bits",
            folder.name,
            weight_bits,
        )
        _pack_weights(model, weight_bits)
    if on_host:
        from .weights.fused_projections import move

        move(model, device)
    return model


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
