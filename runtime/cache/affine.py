"""Calibrated affine maps of keys and values (+affine), which rounding costs less.

    stored key     k' = M (k - m)         query    q' = M^-T q        q'.k' = q.k - q.m
    stored value   v' = N v               output   o  = N^-1 o'

M and N are one invertible matrix for each KV head, m a mean of its keys. The scores of a query move
by q.m, the same for all of its keys, so softmax does not see it; the output is linear in v. So
nothing changes but what rounding costs: calibration/measure/affine_maps.py says how the matrices
are learnt. They follow RoPE, as the Hadamard rotation does (rotation.py), whose place they take.

A buffer holds, for each head of D channels, float16 [2 D + 1, D]: M (or N), then what undoes it
(M^-T for queries, N^-1 for outputs), then m (0 for values). What undoes M is that of M as it was
rounded, so that only its own rounding is left: 2^-11 times M's stretch, of a score.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...planner.accuracy.calibrations import AFFINE, match
from ...planner.errors import BadInput
from ...planner.models.spec import ModelSpec
from ...planner.whole_file import writing
from .layer_state import LayerState, SideState

LEARN = "kvpareto calibrate --affine -m MODEL"
AGAIN = f"{LEARN} --resume"
"""What to type where a calibration is there: without --resume it is not touched."""

Maps = Mapping[str, Tensor]
"""Buffers by "LAYER.key" and "LAYER.value"."""


def map_in(x: Tensor, maps: Tensor) -> Tensor:
    """Keys or values [B, H, n, D] as they are stored, in the dtype of x."""
    dim = x.shape[-1]
    held = maps.float()
    return ((x.float() - held[:, None, 2 * dim]) @ held[:, :dim].mT).to(x.dtype)


def map_out(x: Tensor, maps: Tensor) -> Tensor:
    """Queries as they meet stored keys, or outputs as the model knows them: [B, Hq, n, D], heads
    that share a KV head in a row; in the dtype of x."""
    dim = x.shape[-1]
    grouped = x.unflatten(1, (maps.shape[0], -1)).float()
    return (grouped @ maps[:, None, dim : 2 * dim].float().mT).flatten(1, 2).to(x.dtype)


def maps_of(matrix: Tensor, mean: Tensor | None = None, *, queries: bool = False) -> Tensor:
    """The buffer for matrices [H, D, D]; `queries`: what undoes it is for queries."""
    matrix = matrix.half().double()
    undone = torch.linalg.inv(matrix)
    if mean is None:
        mean = matrix.new_zeros(matrix.shape[:2])
    parts = (matrix, undone.mT if queries else undone, mean.double()[:, None])
    return torch.cat(parts, dim=1).half()


def write_maps(folder: Path, maps: Maps) -> Path:
    """Put a model's maps beside its calibration, whole or not at all. Raises BadInput."""
    path = folder / AFFINE
    torn = path.with_suffix(f".{os.getpid()}")  # of this process: others may write the same
    try:
        with writing(path):
            save_file({name: tensor.contiguous() for name, tensor in maps.items()}, torn)
            torn.replace(path)
    finally:
        torn.unlink(missing_ok=True)
    return path


def find_maps(spec: ModelSpec) -> Maps:
    """The maps that were learnt of this model. Raises BadInput where there are none."""
    calibration = match(spec)
    path = None if calibration is None else calibration.folder / AFFINE
    if path is None or not path.exists():
        raise BadInput(
            f"{spec.name} has no affine maps, which +affine needs",
            f"{LEARN if calibration is None else AGAIN} learns them, or use +rot",
        )
    if not path.is_file():
        raise BadInput(
            f"{path} is no file of maps", f"move it away; then {AGAIN} learns them again"
        )
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"{path} cannot be read: {error}", f"{AGAIN} learns the maps again"
        ) from error


def fill_maps(state: LayerState, maps: Maps, layer: int) -> None:
    """Copy a layer's maps to its buffers. Raises BadInput for those of another shape."""
    for name, side in (("key", state.key), ("value", state.value)):
        if side.affine is not None:
            _fill(side, maps.get(f"{layer}.{name}"), f"layer {layer}'s {name}s")


def _fill(side: SideState, found: Tensor | None, what: str) -> None:
    assert side.affine is not None  # called for such sides
    if found is None or found.shape != side.affine.shape or not bool(found.isfinite().all()):
        raise BadInput(
            f"the affine maps do not fit {what}",
            f"{AGAIN} learns them again",
        )
    side.affine.copy_(found)
