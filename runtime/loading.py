"""From a model and a configuration to a session that runs it.

    with load("meta-llama/Llama-3.1-8B", "w16a16-k4v4-g64+pc1024", context=32768) as session:
        print(session.generate("Once upon a time").text[0])

load_weights.py says how weights come to have their bits.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from numbers import Integral
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ..planner.engines.kvpareto import KVPARETO
from ..planner.errors import BadInput, MissingDependency
from ..planner.formats.configuration import Configuration
from ..planner.memory.estimate import estimate
from ..planner.models.read_config import read_model
from ..planner.models.spec import ModelSpec
from ..planner.workload import Workload
from .cache.kv_cache import check_cache
from .generation.check_call import check_tokenizer
from .generation.prefill import fitting_chunk
from .load_weights import before_weights
from .session import Session
from .weights.load_plain import pack_weights

DEFAULT_CONTEXT = 4096


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
    if not isinstance(chosen, Configuration):
        raise BadInput(f"not a configuration: {config!r}", "write it like w4a16-k4v4-g64+pc256")
    KVPARETO.check_formats(chosen)
    numbers = {"context": context, "output": output, "batch": batch}
    _check_numbers(numbers if memory_target is None else numbers | {"memory_target": memory_target})
    _check_source(model, dtype)
    check_tokenizer(tokenizer)
    work = Workload(context=context, output=output, batch=batch)
    if isinstance(model, PreTrainedModel):
        where = model.device
        spec = read_model(model.config.to_dict(), type(model).__name__)
        spec = replace(spec, dtype=str(model.dtype).removeprefix("torch."))
        chunks = dynamic_chunks(spec, chosen, work, memory_target, where)
        pack_weights(model, chosen.weight_bits)
        loaded = model
    else:
        where = _device(device)
        ahead = before_weights(
            str(model),
            chosen.weight_bits,
            where,
            dtype=dtype,
            tokenizer=tokenizer,
            random_weights=random_weights,
            offline=offline,
            trust_remote_code=trust_remote_code,
        )
        spec, tokenizer = ahead.spec, ahead.tokenizer
        check_cache(spec, chosen, work, where)
        chunks = dynamic_chunks(spec, chosen, work, memory_target, where)
        loaded = ahead.load().model
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
        dynamic=chunks,
    )


def _check_numbers(numbers: dict[str, int]) -> None:
    for name, value in numbers.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise BadInput(f"not a value for {name}: {value!r}", "give a whole number: 32768")


def _check_source(model: PreTrainedModel | str | Path, dtype: torch.dtype | None) -> None:
    if not isinstance(model, PreTrainedModel | str | Path):
        raise BadInput(
            f"not a model: {type(model).__name__}",
            "give a folder, a hub id, or a model of transformers",
        )
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise BadInput(f"not a dtype for weights: {dtype!r}", "give torch.bfloat16")


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(device)
    except (RuntimeError, TypeError):
        raise BadInput(f"no such device: {device!r}", "give cpu or cuda") from None
    if where.type == "cuda" and not torch.cuda.is_available():
        raise MissingDependency(
            "no CUDA GPU is available to torch", "use device='cpu', or install torch with CUDA"
        )
    return where


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
            raise BadInput(
                "dynamic chunks (+pcdyn) follow a memory target, which a CPU has not",
                "name a chunk: +pc512; Python's load takes memory_target in bytes",
            )
        target = torch.cuda.get_device_properties(device).total_memory
    whole = estimate(spec, config.with_chunk(64), work, KVPARETO, None)

    @cache
    def total(chunk: int, cached: int) -> int:
        step = Workload(context=cached + chunk, output=0, batch=work.batch)
        here = estimate(spec, config.with_chunk(chunk), step, KVPARETO, None)
        return whole.total - whole.activation + here.activation

    return fitting_chunk(total, target)
