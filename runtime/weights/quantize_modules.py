"""Which modules of a model are quantized, and putting packed layers in their place.

The rule is the planner's: matrix products of the text decoder, experts included, that the
format can hold; never embeddings, the output head, norms, routers, vision or audio towers.
Roles come from the planner's own reading of the model's config.json, so that the bytes it
predicts are the bytes that are replaced.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from ...planner.errors import BadInput
from ...planner.formats.weight_format import INT8, W4
from ...planner.models.read_config import read_model
from ...planner.models.spec import ModelSpec, Part, Role, TensorGroup
from .experts import (
    QuantizedExperts,
    is_stack_of_experts,
    is_transposed,
    pack_stack,
    packed_experts,
)
from .fused_projections import attach, siblings_of
from .linear import QuantizedLinear, W4Linear, W8Linear
from .workspace import Workspace

FORMATS = {8: INT8, 4: W4}
EXPERT_MATRICES = ("gate_up_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Target:
    """One module to replace: its dotted name, where it hangs, and what of it is packed.

    `matrices` are (out, in) by parameter name; of stacked experts, of one expert's matrix.
    `siblings`: the projections of its parent that it lies side by side with (fused_projections.py).
    """

    name: str
    parent: torch.nn.Module
    module: torch.nn.Module
    matrices: Mapping[str, tuple[int, int]]
    siblings: tuple[str, ...] = ()

    def put(self, replacement: torch.nn.Module) -> None:
        """Hang it where the module was."""
        attach(self.parent, self.name.rpartition(".")[2], replacement, self.siblings)


def part_of(parameter: str) -> str:
    """The part of an experts module (experts.py) that a stacked parameter is."""
    return "down" if parameter == "down_proj" else "first"


def matrices_of(module: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """(out, in) of a module's matrices by parameter name; of stacked experts, of one's."""
    if isinstance(module, torch.nn.Linear):
        return {"weight": (module.out_features, module.in_features)}
    shapes = {}
    for name in EXPERT_MATRICES:
        parameter = module._parameters.get(name)
        if parameter is not None:
            _, first, second = parameter.shape
            shapes[name] = (second, first) if is_transposed(module) else (first, second)
    return shapes


def spec_of(model: torch.nn.Module) -> ModelSpec:
    """The planner's description of a transformers model, read from the model's own config."""
    config = model.config.to_dict()  # type: ignore[union-attr, operator]
    config.pop("quantization_config", None)
    return read_model(config, str(config.get("_name_or_path") or config.get("model_type")))


def targets(model: torch.nn.Module, weight_bits: int, spec: ModelSpec) -> list[Target]:
    """Modules of `model` that w8 or w4 quantizes, in the model's order.

    Raises BadInput where the planner's description has no such parameter.
    """
    groups = {group.name: group for group in spec.tensors}
    modules = dict(model.named_modules())
    head = model.get_output_embeddings()  # type: ignore[operator]
    chosen_targets = []
    for name, module in modules.items():
        # The head is never quantized, and no tensor of its own where it is tied.
        if module is head or not (
            isinstance(module, torch.nn.Linear) or is_stack_of_experts(module)
        ):
            continue
        chosen = {
            parameter: shape
            for parameter, shape in matrices_of(module).items()
            if _is_quantized(f"{name}.{parameter}", groups, spec)
            and FORMATS[weight_bits].fits(*shape)
        }
        if chosen:
            chosen_targets.append(Target(name, modules[name.rpartition(".")[0]], module, chosen))
    packed = {target.name: target.module for target in chosen_targets}
    return [replace(x, siblings=siblings_of(x.name, packed)) for x in chosen_targets]


def _is_quantized(parameter: str, groups: Mapping[str, TensorGroup], spec: ModelSpec) -> bool:
    group = groups.get(re.sub(r"\.\d+(?=\.)", ".*", parameter))
    if group is None:
        raise BadInput(
            f"{parameter} is not in the planner's description of this {spec.model_type}",
            "run this model with w16",
        )
    return group.part is Part.TEXT and group.role in (Role.LINEAR, Role.EXPERT)


def workspace_for(
    model: torch.nn.Module,
    weight_bits: int,
    chosen_targets: list[Target],
    device: torch.device | str,
) -> Workspace:
    """The scratch of the largest target, attached to the model as `weight_workspace`."""
    stored = FORMATS[weight_bits]
    shapes = [shape for target in chosen_targets for shape in target.matrices.values()]
    largest = max((out * stored.padded(inputs) for out, inputs in shapes), default=0)
    workspace = Workspace(largest, device)
    model.add_module("weight_workspace", workspace)
    return workspace


def apply(
    model: torch.nn.Module,
    weight_bits: int,
    *,
    spec: ModelSpec | None = None,
    on: torch.device | None = None,
) -> None:
    """Replace `model`'s matrices by packed ones, one at a time, rounding to nearest, `on` a device
    that does it faster than where they lie (rounding.py).

    In place; 16 leaves the model as it is. For 4 bits with an activation-aware search, make a
    checkpoint with `quantize` and load that.
    """
    if weight_bits == 16:
        return
    remaining = targets(model, weight_bits, spec or spec_of(model))
    device = next(model.parameters()).device
    workspace = workspace_for(model, weight_bits, remaining, device)
    make: Callable[..., QuantizedLinear] = (
        W4Linear.from_weight if weight_bits == 4 else W8Linear.from_weight
    )
    while remaining:
        # Taken off the list, so that each old weight is freed before the next is packed.
        target = remaining.pop(0)
        module = target.module
        if isinstance(module, torch.nn.Linear):
            bias = None if module.bias is None else module.bias.detach()
            target.put(make(module.weight.detach(), bias, workspace, on))
        else:
            target.put(_packed_experts(target, weight_bits, workspace, on))


def _packed_experts(
    target: Target, weight_bits: int, workspace: Workspace, on: torch.device | None
) -> QuantizedExperts:
    transposed = is_transposed(target.module)
    packed = {
        part_of(name): pack_stack(target.module.get_parameter(name), weight_bits, transposed, on)
        for name in target.matrices
    }
    return packed_experts(target.module, packed, workspace, target.parent)


def packed_bytes(model: torch.nn.Module) -> int:
    """Bytes of the model's weights as stored, each storage once, the workspace aside."""
    workspace = {id(b) for m in model.modules() if isinstance(m, Workspace) for b in m.buffers()}
    saved = {
        id(tensor): tensor.nbytes
        for module in model.modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
        and id(tensor) not in workspace
        and name not in module._non_persistent_buffers_set
    }
    return sum(saved.values())
