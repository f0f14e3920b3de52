"""Loading `quant_method: awq` checkpoints straight from safetensors, without an AWQ library.

The model is built on the meta device, each layer that the checkpoint stores packed becomes a
W4Linear (stacked experts a QuantizedExperts), and every other tensor is assigned to its
parameter. Which layers are packed is read off the files, not guessed from the config.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ...planner.errors import BadInput
from ..checkpoint import check_files, draft_layers, is_ignorable
from .awq_format import AWQTensors
from .build import assign, materialize, meta_model, read_hf_config, unassigned
from .experts import is_stack_of_experts, packed_experts
from .fused_projections import attach, siblings_of
from .layout import Packed4, from_awq
from .linear import W4Linear
from .workspace import Workspace

_PACKED = ("qweight", "qzeros", "scales")


class Checkpoint:
    """The tensors of a folder's safetensors files, read one at a time onto `device`."""

    def __init__(self, folder: Path, device: torch.device | str) -> None:
        from safetensors import safe_open

        self.folder = folder
        self._file_of: dict[str, Any] = {}
        for file in check_files(folder):
            opened = safe_open(str(file), framework="pt", device=str(device))
            self._file_of.update(dict.fromkeys(opened.keys(), opened))

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def names(self) -> Iterator[str]:
        return iter(self._file_of)

    def get(self, name: str) -> torch.Tensor:
        if name not in self._file_of:
            raise BadInput(f"{self.folder.name} has no tensor {name}", "download it again")
        return self._file_of[name].get_tensor(name)

    def packed(self, module: str) -> AWQTensors:
        tensors = AWQTensors(*(self.get(f"{module}.{part}") for part in _PACKED))
        tensors.check(module)
        return tensors


def load_awq(
    folder: str | Path,
    device: torch.device | str = "cpu",
    *,
    dtype: torch.dtype = torch.bfloat16,
    attention: str | None = None,
) -> torch.nn.Module:
    """The causal LM of an AWQ checkpoint folder, packed layers running as they are stored.

    `attention` is transformers' `attn_implementation`. Raises BadInput for another format,
    missing or surplus tensors, or shapes that do not fit the config.
    """
    folder = Path(folder)
    config = read_hf_config(folder)
    _check_format(getattr(config, "quantization_config", None), folder)
    del config.quantization_config
    model = meta_model(config, dtype, attention)
    checkpoint = Checkpoint(folder, device)
    used = _put_packed(model, checkpoint, dtype, device)
    plain = [name for name in checkpoint.names() if name not in used]
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    known |= {name for name, _ in model.named_buffers()}
    layers, drafts = config.get_text_config().num_hidden_layers, draft_layers(config.to_dict())
    strangers = [n for n in plain if n not in known and not is_ignorable(n, layers, drafts)]
    if strangers:
        raise BadInput(
            f"{folder.name} stores {strangers[0]} and {len(strangers) - 1} more tensors that "
            f"transformers' {config.model_type} does not have",
            "this checkpoint needs another transformers version or another model type",
        )
    for name in plain:
        if name in known:
            assign(model, {name: checkpoint.get(name)})
    missing = unassigned(model)
    if missing:
        raise BadInput(
            f"{folder.name} does not store {missing[0]} and {len(missing) - 1} more parameters",
            "download the checkpoint again",
        )
    materialize(model, device)
    return model


def is_awq(folder: str | Path) -> bool:
    """Whether a folder's config.json says `quant_method: awq`."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        return False
    quantization = json.loads(path.read_text()).get("quantization_config") or {}
    return str(quantization.get("quant_method", "")).lower() == "awq"


def _put_packed(
    model: torch.nn.Module,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device | str,
) -> set[str]:
    """Replace every module the checkpoint stores packed; the names of the tensors used."""
    packed = {n.removesuffix(".qweight") for n in checkpoint.names() if n.endswith(".qweight")}
    packed_modules = [
        (name, module)
        for name, module in model.named_modules()
        if name in packed or (is_stack_of_experts(module) and f"{name}.0.down_proj" in packed)
    ]
    workspace = Workspace(max((_largest(m) for _, m in packed_modules), default=0), device)
    model.add_module("weight_workspace", workspace)
    used: set[str] = set()
    modules = dict(packed_modules)
    for name, module in packed_modules:
        path, _, leaf = name.rpartition(".")
        parent = model.get_submodule(path)
        if isinstance(module, torch.nn.Linear):
            bias = checkpoint.get(f"{name}.bias").to(dtype) if module.bias is not None else None
            layer = W4Linear.from_awq(checkpoint.packed(name), bias, workspace)
            _check_shape(name, layer, module)
            used |= {f"{name}.{part}" for part in (*_PACKED, "bias")}
            attach(parent, leaf, layer, siblings_of(name, modules))
        else:
            first, down, names = _stacks(checkpoint, name, module)
            used |= names
            packed_stacks = {"first": first, "down": down}
            layer_of_experts = packed_experts(module, packed_stacks, workspace, parent)
            setattr(parent, leaf, layer_of_experts)
    return used


def _stacks(
    checkpoint: Checkpoint, name: str, module: torch.nn.Module
) -> tuple[Packed4, Packed4, set[str]]:
    """Experts are stored one by one, gate and up apart; here they are stacked, gate first."""
    count = module.get_parameter("down_proj").shape[0]
    firsts, downs, used = [], [], set()
    for expert in range(count):
        parts = {}
        for leaf in ("gate_proj", "up_proj", "down_proj"):
            parts[leaf] = from_awq(checkpoint.packed(f"{name}.{expert}.{leaf}"))
            used |= {f"{name}.{expert}.{leaf}.{part}" for part in _PACKED}
        gate, up = parts["gate_proj"], parts["up_proj"]
        firsts.append(
            [torch.cat(pair, dim=1) for pair in zip(_tensors(gate), _tensors(up), strict=True)]
        )
        downs.append(_tensors(parts["down_proj"]))
    first = Packed4(*(torch.stack(column) for column in zip(*firsts, strict=True)))
    down = Packed4(*(torch.stack(column) for column in zip(*downs, strict=True)))
    return first, down, used


def _tensors(weight: Packed4) -> list[torch.Tensor]:
    return [weight.words, weight.zeros, weight.scales]


def _largest(module: torch.nn.Module) -> int:
    """Elements of the module's largest matrix."""
    return max(
        p.numel() // (p.shape[0] if p.dim() == 3 else 1)
        for p in module.parameters()
        if p.dim() >= 2
    )


def _check_shape(name: str, layer: W4Linear, module: torch.nn.Linear) -> None:
    stored, wanted = ((m.in_features, m.out_features) for m in (layer, module))
    if stored != wanted:
        raise BadInput(
            f"{name} is stored as {stored[0]} x {stored[1]}, the config says "
            f"{wanted[0]} x {wanted[1]}",
            "config.json and the weights do not belong together",
        )


def _check_format(quantization: Any, folder: Path) -> None:
    settings = quantization if isinstance(quantization, dict) else {}
    method = str(settings.get("quant_method", "")).lower()
    bits = settings.get("bits", settings.get("w_bit"))
    version = str(settings.get("version") or settings.get("format") or "gemm").lower()
    if method != "awq" or bits != 4 or version != "gemm":
        raise BadInput(
            f"{folder.name} is not a 4-bit AWQ checkpoint in the gemm format "
            f"(quant_method {method or 'none'!r}, bits {bits}, version {version!r})",
            "quantize the 16-bit model with `kvpareto.runtime.weights.quantize`",
        )
