"""Making a 4-bit checkpoint of a 16-bit model: with a search on sample text, or by rounding.

`quantize` runs a kept AWQ library (awq_quantizer.py); `save_awq` writes a model whose layers are
already packed, which with `replace.apply` gives the plain baseline without any search. Both
write the standard format (awq_format.py) that this package, transformers and vLLM load.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from ... import profiles
from ...planner.errors import BadInput
from ...planner.models.checkpoint_tensors import SINGLE
from . import awq_quantizer as awq_adapter
from . import layout
from .awq_format import AWQTensors
from .experts import QuantizedExperts
from .linear import W4Linear, W8Linear

PIECE = 512  # tokens of a calibration sample
DEFAULT_TEXT = "calibration_text.md"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def quantize(
    source: str | Path,
    destination: str | Path,
    *,
    text: str | None = None,
    group_size: int = layout.BLOCK4,
    device: str | None = None,
    library: str | None = None,
) -> Path:
    """Quantize the checkpoint folder `source` to 4 bits with an activation-aware search.

    `text` is what the search looks at, best of the kind the model will see (default: a page
    written for this project); `library` is "gptqmodel" or "autoawq" (default: the installed
    one). Returns `destination`. Raises BadInput for a text too short to learn from, and
    MissingDependency without a library.
    """
    source, destination = Path(source), Path(destination)
    chosen = awq_adapter.choose(library)
    if not (source / "config.json").is_file():
        raise BadInput(f"{source} has no config.json", "give a folder with a 16-bit checkpoint")
    samples = pieces(source, text or profiles.read(DEFAULT_TEXT))
    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    awq_adapter.search_and_save(
        source, destination, samples, group_size=group_size, device=device, library=chosen
    )
    _copy_tokenizer(source, destination)
    return destination


def pieces(source: Path, text: str) -> list[list[int]]:
    """`text` as token ids in pieces of PIECE tokens, or one piece where it is shorter."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) < 64:
        raise BadInput(
            f"a calibration text of {len(ids)} tokens says too little", "give at least a page"
        )
    whole = [ids[i : i + PIECE] for i in range(0, len(ids) - PIECE + 1, PIECE)]
    return whole or [ids]


def save_awq(model: torch.nn.Module, folder: str | Path) -> Path:
    """Write a model with W4Linear layers as an AWQ checkpoint.

    Raises BadInput for 8-bit layers and for experts whose gate and up are interleaved, which
    the format does not name.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    groups: set[int] = set()
    covered: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, W8Linear):
            raise BadInput("8-bit layers have no place in an AWQ checkpoint", "use w4")
        if isinstance(module, W4Linear):
            if module.in_features != module.packed.shape[0]:
                raise BadInput(
                    f"{name} of {module.in_features} inputs has no place in an AWQ checkpoint, "
                    "whose groups are whole",
                    "keep it in memory",
                )
            groups.add(module.packed.group_size)
            tensors |= _named(name, layout.to_awq(module.packed))
            if module.bias is not None:
                tensors[f"{name}.bias"] = module.bias
            covered.append(f"{name}.")
        elif isinstance(module, QuantizedExperts):
            groups |= _put_experts(tensors, name, module)
            covered.append(f"{name}.")
    for name, tensor in model.state_dict().items():
        if not name.startswith(tuple(covered)):
            tensors[name] = tensor
    if len(groups) != 1:
        raise BadInput(f"the model's group sizes are {sorted(groups)}, not one", "pack it with w4")
    config = model.config.to_dict()  # type: ignore[union-attr, operator]
    if config.get("tie_word_embeddings"):
        tensors.pop("lm_head.weight", None)
    config["quantization_config"] = _settings(groups.pop())
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n")
    save_file(
        {name: tensor.contiguous().cpu() for name, tensor in tensors.items()},
        str(folder / SINGLE),
        metadata={"format": "pt"},
    )
    return folder


def _settings(group_size: int) -> dict[str, Any]:
    return {
        "quant_method": "awq",
        "bits": 4,
        "group_size": group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": None,
    }


def _named(module: str, tensors: AWQTensors) -> dict[str, torch.Tensor]:
    return {
        f"{module}.qweight": tensors.qweight,
        f"{module}.qzeros": tensors.qzeros,
        f"{module}.scales": tensors.scales,
    }


def _put_experts(
    tensors: dict[str, torch.Tensor], name: str, experts: QuantizedExperts
) -> set[int]:
    first, down = experts.stack("first"), experts.stack("down")
    plain = getattr(experts.inner, "is_concatenated", True) and experts.names["first"] != "up_proj"
    if not isinstance(first, layout.Packed4) or not isinstance(down, layout.Packed4) or not plain:
        raise BadInput(f"{name} cannot be written as an AWQ checkpoint", "keep it in memory")
    half = first.shape[1] // 2
    if (first.shape[0], half) != down.shape[::-1]:  # zeros behind the inputs
        raise BadInput(
            f"{name} has no place in an AWQ checkpoint, whose groups are whole", "keep it in memory"
        )
    for index in range(first.words.shape[0]):
        both = layout.to_awq(first.member(index))
        for leaf, start in (("gate_proj", 0), ("up_proj", half)):
            columns, words = slice(start, start + half), slice(start // 8, (start + half) // 8)
            part = AWQTensors(
                both.qweight[:, words], both.qzeros[:, words], both.scales[:, columns]
            )
            tensors |= _named(f"{name}.{index}.{leaf}", part)
        tensors |= _named(f"{name}.{index}.down_proj", layout.to_awq(down.member(index)))
    return {first.group_size, down.group_size}


def _copy_tokenizer(source: Path, destination: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).is_file() and not (destination / name).is_file():
            shutil.copyfile(source / name, destination / name)
