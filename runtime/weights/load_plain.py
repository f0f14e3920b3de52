"""A checkpoint that is not AWQ's, read by transformers; rounded to fewer bits where asked.

Weights of 16 bits as they are stored, those of other quantized checkpoints dequantized on the way.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ...planner.errors import BadInput
from ...planner.models.spec import ModelSpec
from ..checkpoint import AGAIN, check_loaded, draft_layers, without_bars
from ..failures import reading
from ..model_class import causal_class

logger = logging.getLogger(__name__)


def load_plain(
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
    rounded for a GPU is loaded into the host's memory, and rounded on the GPU a block at a time, so
    that the 16-bit weights never lie there.
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
        pack_weights(model, weight_bits, device if on_host else None)
    if on_host:
        from .fused_projections import move

        move(model, device)
    return model


def _dequantized(folder: Path, section: Mapping[str, Any], how: dict[str, Any]) -> Any:
    """What from_pretrained gives of a checkpoint that is dequantized, tensor by tensor."""
    from .dequantize import dequantized_tensors

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


def pack_weights(model: Any, bits: int, on: torch.device | None = None) -> None:
    """Round the weights of a 16-bit model in place, `on` a GPU where they do not lie (rounding.py);
    16 bits change nothing."""
    if bits < 16:
        from .quantize_modules import apply  # needs triton

        apply(model, bits, on=on)
        if on is not None and on.type == "cuda":
            torch.cuda.empty_cache()
